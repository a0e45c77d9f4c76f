#include "storage/layer/manifest.h"

#include <gtest/gtest.h>

#include "storage/layer/record.h"
#include "storage/layer/store_records.h"

namespace ivmm::storage {
namespace {

Manifest example() {
    return {"2f6c", 300, 299, Manifest::State::kSealed, 7};
}

TEST(Manifest, IsReadAsItWasWritten) {
    const auto read = decode_manifest(encode_manifest(example()));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, example());
    Manifest first{"u", Manifest::kFirstNumber, 0, Manifest::State::kOpen, UINT64_MAX};
    EXPECT_EQ(*decode_manifest(encode_manifest(first)), first);
}

TEST(Manifest, AnyDamageIsSeen) {
    const auto text = encode_manifest(example());
    for (size_t length = 0; length < text.size(); ++length) {
        EXPECT_FALSE(decode_manifest(text.substr(0, length))) << length;
    }
    for (size_t at = 0; at < text.size(); ++at) {
        for (int bit = 0; bit < 8; ++bit) {
            auto damaged = text;
            damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
            EXPECT_FALSE(decode_manifest(damaged)) << at;
        }
    }
    EXPECT_FALSE(decode_manifest(text + "x"));
}

nlohmann::json fields(const nlohmann::json& changes) {
    nlohmann::json json = {
        {"uuid", "u"}, {"number", 300}, {"parent", 299}, {"state", "open"}, {"generation", 0}};
    json.merge_patch(changes);
    return json;
}

std::string error_of(const nlohmann::json& changes, const char* format = "ivmm-layer",
                     uint32_t version = 1) {
    const auto read = decode_manifest(encode_record(format, version, fields(changes)));
    return read ? "accepted" : read.error().message;
}

TEST(Manifest, ValuesThatCannotBeAreRefused) {
    EXPECT_EQ(error_of({{"note", "of a friend"}}), "accepted");
    EXPECT_EQ(error_of({{"number", 255}, {"parent", 0}}),
              "\"number\" is 255, which is out of range");
    EXPECT_EQ(error_of({{"number", 4294967296}}),
              "\"number\" is 4294967296, which is out of range");
    EXPECT_EQ(error_of({{"parent", 300}}), "\"parent\" is 300, which is out of range");
    EXPECT_EQ(error_of({{"parent", 255}}), "\"parent\" is 255, which is no layer of a store");
    EXPECT_EQ(error_of({{"parent", -1}}), "\"parent\" is missing or not a number");
    EXPECT_EQ(error_of({{"state", "odd"}}), "\"state\" is \"odd\"");
    EXPECT_EQ(error_of({{"uuid", nullptr}}), "\"uuid\" is missing or not a text");
    EXPECT_EQ(error_of({}, "ivmm-view"), "its format is \"ivmm-view\", not \"ivmm-layer\"");
    EXPECT_EQ(error_of({}, "ivmm-layer", 0), "there is no format version 0");
}

TEST(Manifest, ANewerVersionIsNoDamage) {
    const auto read = decode_manifest(encode_record("ivmm-layer", 2, fields({})));
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().kind, ErrorKind::kHost);
    EXPECT_EQ(read.error().message, "format version 2; this ivmm reads version 1");
}

TEST(StoreRecords, AreReadAsTheyWereWritten) {
    const StoreRecord store{"2f6c", MarkStyle::kTrusted, {"/a b/\"c\"", "/ü\n"}};
    EXPECT_EQ(*decode_store_record(encode_store_record(store)), store);
    EXPECT_EQ(*decode_view_record(encode_view_record({257})), ViewRecord{257});
    EXPECT_EQ(*decode_next_record(encode_next_record({258})), NextRecord{258});
}

TEST(StoreRecords, ValuesThatCannotBeAreRefused) {
    for (const nlohmann::json& lower :
         {nlohmann::json("/a"), nlohmann::json::array({"a"}), nlohmann::json::array({1}),
          nlohmann::json::array({std::string("/a\0b", 4)})}) {
        EXPECT_FALSE(decode_store_record(
            encode_record("ivmm-store", 1, {{"uuid", "u"}, {"marks", "user"}, {"lower", lower}})));
    }
    EXPECT_FALSE(decode_store_record(encode_record(
        "ivmm-store", 1, {{"uuid", "u"}, {"marks", "odd"}, {"lower", nlohmann::json::array()}})));
    EXPECT_FALSE(decode_store_record(
        encode_store_record({"u", MarkStyle::kUser, std::vector<std::string>(256, "/a")})));
    EXPECT_FALSE(decode_view_record(encode_view_record({255})));
    EXPECT_FALSE(decode_next_record(encode_next_record({1})));
}

}  // namespace
}  // namespace ivmm::storage
