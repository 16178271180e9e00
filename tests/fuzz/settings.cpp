// The settings of any environment.

#include <sys/auxv.h>

namespace {
unsigned long auxiliary;  // what getauxval(3) answers
unsigned long asked(unsigned long) {
    return auxiliary;
}
}  // namespace
#define getauxval asked
// One unit with it, for the name above.
#include "settings/settings.cpp"  // NOLINT(bugprone-suspicious-include)
#undef getauxval

#include <vector>

#include "check.h"

using pht::Str;
using pht::u8;

namespace {

// Texts that are each ended by a NUL.
std::vector<std::string> split(Str list) {
    std::vector<std::string> all;
    CHECK(!list.size || list.data[list.size - 1] == 0);
    pht::each_text(list, [&](Str text) {
        all.emplace_back(text.data, text.size);
        return true;
    });
    return all;
}

void check_stores(const pht::Settings &settings, bool secure) {
    const std::vector<std::string> stores = split(settings.request().stores);
    CHECK(!stores.empty() && stores.size() <= 2 && stores[0] == pht::kSystemStore);
    CHECK(split(settings.request().shm_stores).size() == (secure ? 0 : 1));
    CHECK(!secure || stores.size() == 1);
    for (const std::string &store : stores) CHECK(!store.empty() && store[0] == '/');
}

// What a terminal would obey never gets into a sentence.
void check_problems(const pht::Settings &settings) {
    for (const std::string &problem : split(settings.problems())) {
        CHECK(problem.size() > 10);
        for (const char c : problem) CHECK(static_cast<u8>(c) >= 0x20 && c != 0x7f);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    const fuzz::Execution execution;
    fuzz::Input input(data, size);
    auxiliary = input.number() & 1;
    const bool bare = size < 2;
    const std::string all(input.rest());
    std::vector<const char *> environment;
    for (size_t at = 0; at < all.size(); at += strlen(all.c_str() + at) + 1)
        environment.push_back(all.c_str() + at);
    environment.push_back(nullptr);
    const pht::Settings settings(bare ? nullptr : environment.data());
    const pht::Request &request = settings.request();
    CHECK(static_cast<int>(request.backing) <= static_cast<int>(pht::Backing::automatic));
    CHECK(static_cast<int>(request.building) <= static_cast<int>(pht::Building::always));
    for (const pht::SizeField &field : pht::kSizeFields)
        CHECK(request.*field.member <= pht::kNoLimit);
    CHECK(request.build_time <= pht::kNoLimit || request.build_time == pht::kAutomaticTime);
    for (const Str list : {request.include, request.exclude})
        for (const std::string &pattern : split(list))
            CHECK(!pattern.empty() && pattern.find(':') == std::string::npos);
    check_stores(settings, auxiliary);
    check_problems(settings);
    if (auxiliary) {
        CHECK(!settings.off && !settings.debug && settings.problems().size == 0);
        CHECK(request.building == pht::Building::never && !request.include.size);
    }
    // The patterns meet a path.
    pht::each_text(request.include, [&](Str pattern) {
        if (pattern.size < 64) (void)pht::glob_match(pattern, pht::str("/usr/lib/libaab.so.1"));
        return true;
    });
    return 0;
}
