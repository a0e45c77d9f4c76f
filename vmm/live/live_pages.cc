#include "vmm/live/live_pages.h"

#include "vmm/live/host_metrics.h"
#include "vmm/live/host_state.h"
#include "vmm/live/web_files.h"

namespace ivmm::live {
namespace {

constexpr std::chrono::milliseconds kFresh{500};

}  // namespace

template <class Make>
Result<std::string> LivePages::fresh(Made& made, Make make) {
    if (made.body.empty() || Clock::now() - made.at > kFresh) {
        IVMM_ASSIGN(made.body, make());
        made.at = Clock::now();
    }
    return made.body;
}

Result<Page> LivePages::get(const std::string& path) {
    if (path == "/metrics") {
        IVMM_ASSIGN(auto text, fresh(metrics_, [&]() -> Result<std::string> {
                        IVMM_ASSIGN(const auto metrics, host_metrics(processes_));
                        return metrics.to_text();
                    }));
        return Page{"text/plain; version=0.0.4; charset=utf-8", std::move(text)};
    }
    return fail_as(ErrorKind::kUsage, "There is no such page.");
}

Result<Page> LivePages::get_site(const std::string& path) {
    if (path == "/api/state.json") {
        IVMM_ASSIGN(auto text, fresh(state_, [&]() -> Result<std::string> {
                        IVMM_ASSIGN(const auto state, host_state(processes_));
                        return state.dump(-1, ' ', false, rpc::Json::error_handler_t::replace);
                    }));
        return Page{"application/json", std::move(text)};
    }
    auto file = web_file(path);
    return file ? Result<Page>(*std::move(file)) : get(path);
}

}  // namespace ivmm::live
