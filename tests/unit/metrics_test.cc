#include "vmm/control/metrics.h"

#include <gmock/gmock.h>

namespace ivmm {
namespace {

using rpc::Json;
using ::testing::HasSubstr;

TEST(MetricsTest, TextOfPrometheus) {
    Metrics metrics;
    metrics.gauge("ivmm_b", "One\nline \\ only.", 1.5, {{"path", "a\"b\\c\nd"}});
    metrics.counter("ivmm_a_total", "Counted.", 12345678901234);
    EXPECT_EQ(metrics.to_text(),
              "# HELP ivmm_a_total Counted.\n"
              "# TYPE ivmm_a_total counter\n"
              "ivmm_a_total 12345678901234\n"
              "# HELP ivmm_b One\\nline \\\\ only.\n"
              "# TYPE ivmm_b gauge\n"
              "ivmm_b{path=\"a\\\"b\\\\c\\nd\"} 1.5\n");
}

TEST(MetricsTest, HistogramCountsUpToEachBound) {
    Histogram histogram;
    for (const double seconds : {0.0001, 0.0005, 0.0006, 100.0}) {
        histogram.observe(seconds);
    }
    EXPECT_EQ(histogram.at_most(0), 1u);  // 0.00025
    EXPECT_EQ(histogram.at_most(1), 2u);  // 0.0005: a bound belongs to what is below it
    EXPECT_EQ(histogram.at_most(Histogram::kBounds.size() - 1), 3u);
    Metrics metrics;
    metrics.histogram("ivmm_t_seconds", "Time.", histogram, {{"of", "x"}});
    const std::string text = metrics.to_text();
    EXPECT_THAT(text, HasSubstr("ivmm_t_seconds_bucket{le=\"0.00025\",of=\"x\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("ivmm_t_seconds_bucket{le=\"+Inf\",of=\"x\"} 4\n"));
    EXPECT_THAT(text, HasSubstr("ivmm_t_seconds_count{of=\"x\"} 4\n"));
    EXPECT_THAT(text, HasSubstr("ivmm_t_seconds_sum{of=\"x\"} 100.0012\n"));
}

TEST(MetricsTest, ComesThroughJsonAsItWas) {
    Metrics metrics = process_metrics();
    Histogram histogram;
    histogram.observe(0.003);
    metrics.histogram("ivmm_t_seconds", "Time.", histogram);
    const auto back = Metrics::from_json(Json::parse(metrics.to_json().dump()));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->to_text(), metrics.to_text());
    EXPECT_THAT(metrics.to_text(), HasSubstr("ivmm_process_resident_memory_bytes "));
}

TEST(MetricsTest, WhoAProcessIsIsNotForItToSay) {
    Metrics of_clone;
    of_clone.gauge("ivmm_x", "X.", 1, {{"guest", "web"}});
    of_clone.gauge("ivmm_x", "X.", 2, {{"guest", "trap"}});  // which are the same now
    of_clone.counter("ivmm_up", "A lie.", 7);
    Metrics all;
    all.gauge("ivmm_up", "Up.", 1, {{"guest", "trap"}});
    all.add(of_clone, {{"guest", "trap"}});
    EXPECT_EQ(all.to_text(),
              "# HELP ivmm_up Up.\n# TYPE ivmm_up gauge\nivmm_up{guest=\"trap\"} 1\n"
              "# HELP ivmm_x X.\n# TYPE ivmm_x gauge\nivmm_x{guest=\"trap\"} 1\n");
}

TEST(MetricsTest, RefusesWhatIsNone) {
    const auto family = [](const char* with) {
        Json json = Json::parse(R"({"name":"ivmm_x","type":"gauge","help":"","samples":
                                    [{"name":"ivmm_x","labels":{"a":"b"},"value":1}]})");
        json.merge_patch(Json::parse(with));
        return Metrics::from_json({{"metrics", Json::array({json})}}).has_value();
    };
    EXPECT_TRUE(family("{}"));
    for (const char* const wrong :
         {R"({"name":"9"})", R"({"name":"ivmm_x y"})", R"({"name":null})", R"({"type":"summary"})",
          R"({"samples":5})", R"({"samples":[5]})",
          R"({"samples":[{"name":"ivmm_x","labels":{}}]})",
          R"({"samples":[{"name":"ivmm_x_count","labels":{},"value":1}]})",
          R"({"samples":[{"name":"other","labels":{},"value":1}]})",
          R"({"samples":[{"name":"ivmm_x","labels":{"a\"b":"c"},"value":1}]})",
          R"({"samples":[{"name":"ivmm_x","labels":{"a":1},"value":1}]})",
          R"({"samples":[{"name":"ivmm_x","labels":{},"value":"1"}]})"}) {
        EXPECT_FALSE(family(wrong)) << wrong;
    }
    EXPECT_FALSE(Metrics::from_json(Json()));
    EXPECT_FALSE(Metrics::from_json(Json::array()));
    EXPECT_FALSE(Metrics::from_json({{"metrics", 1}}));
}

}  // namespace
}  // namespace ivmm
