// Which engine of those that were loaded is the one that works; see host.h.
#include <link.h>

#include "elf/symbols.h"
#include "engine/lock.h"
#include "host/host.h"

namespace pht {

namespace {

using Offering = const EngineOffer *(*)();

// Objects of two versions have no other word in common than this name.
constexpr const char *kSymbol = "pyhugetext_engine";

// What engines of one version have to agree on besides: builds of a version under work.
constexpr u64 kLayout = sizeof(EngineApi) << 48 ^ sizeof(Snapshot) << 36 ^
                        sizeof(RegionView) << 24 ^ sizeof(Request) << 12 ^ sizeof(Settings);

constexpr EngineOffer kOwn = {kCapsule, kLayout, &own_engine};

struct Search {
    Offering first = nullptr;
    bool unknown = false;  // an object of this project's, of a version that has no such function
};

// The preload library, or the module of the start-up path of some installation.
bool may_have_engine(Str path) {
    const Str name = basename(path);
    if (equal(name, str("libpyhugetext_preload.so"))) return true;
    const Str directory = {path.data, path.size - name.size};
    return starts_with(name, str("_boot.")) && ends_with(directory, str("pyhugetext/"));
}

int find_first(dl_phdr_info *info, size_t, void *data) {
    auto *search = static_cast<Search *>(data);
    if (!info->dlpi_name || !may_have_engine(str(info->dlpi_name))) return 0;
    const u64 bias = info->dlpi_addr;
    const auto *dynamic = find_dynamic(bias, info->dlpi_phdr, info->dlpi_phnum);
    const u64 found = find_symbol(bias, dynamic, kSymbol);
    search->first = reinterpret_cast<Offering>(found);
    search->unknown = !found;
    return 1;
}

enum class Whose : u8 { unknown, own, own_aside, other };
u8 whose;
const EngineApi *other;

}  // namespace

extern "C" [[gnu::visibility("default")]] const EngineOffer *pyhugetext_engine() {
    return &kOwn;
}

const EngineApi &engine_of_process() {
    const auto known = static_cast<Whose>(__atomic_load_n(&whose, __ATOMIC_ACQUIRE));
    if (known == Whose::other) return *other;
    if (known != Whose::unknown) return own_engine;
    Search search;
    dl_iterate_phdr(find_first, &search);
    const EngineOffer *offer = search.first ? search.first() : nullptr;
    Whose found = Whose::own;
    if (offer && offer != &kOwn) {
        const bool same = equal(str(offer->version), str(kCapsule)) && offer->layout == kLayout;
        found = same ? Whose::other : Whose::own_aside;
        if (same) other = offer->api;
    } else if (search.unknown) {
        found = Whose::own_aside;
    }
    if (found == Whose::own_aside) Engine::get().stand_aside(Status::other_engine);
    __atomic_store_n(&whose, static_cast<u8>(found), __ATOMIC_RELEASE);
    return found == Whose::other ? *other : own_engine;
}

bool has_own_engine() {
    return &engine_of_process() == &own_engine &&
           static_cast<Whose>(__atomic_load_n(&whose, __ATOMIC_ACQUIRE)) == Whose::own;
}

}  // namespace pht
