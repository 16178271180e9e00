// PYHUGETEXT_DEBUG=1: a line for every decision, when it is made.

#include <new>

#include "builder/trouble.h"
#include "engine/engine.h"
#include "engine/lock.h"
#include "engine/sentence.h"

namespace pht {

void add_sentence(const Outcome &outcome, Line *out) {
    const char *sentence = kStatusTexts[static_cast<int>(outcome.status)].sentence;
    out->add(*sentence || outcome.call == Call::none ? sentence : "kernel said no");
    if (outcome.call == Call::none) return;
    Buffer<400> error;
    out->add(": ").add(kCallNames[static_cast<int>(outcome.call)]).add(" failed");
    if (!outcome.error) return;
    add_error(Error{outcome.error}, &error);
    out->add(": ").add(error.data);
}

namespace {

void describe(const Region &region, Line *out) {
    const bool huge = region.any_huge();
    out->add(region.path_text()).add(": ");
    if (huge) {
        out->add(kRegionStateNames[static_cast<int>(region.state())]).add(", ");
        out->add(name_of(region.backing)).add(", ");
        out->add_decimal(region.swapped_bytes() / 1024).add(" KiB");
    } else {
        out->add("small");
    }
    bool any = false;
    const auto next = [&] {
        out->add(any ? "; " : " (");
        any = true;
    };
    if (!region.outcome.ok()) {
        next();
        add_sentence(region.outcome, out);
    }
    for (int i = 1; i < kBackings; ++i) {
        const auto backing = static_cast<Backing>(i);
        if (huge && backing == region.backing) break;
        const Outcome &tried = region.tried[i];
        if (tried.status == Status::pending || tried.ok()) continue;
        next();
        out->add(name_of(backing)).add(": ");
        add_sentence(tried, out);
    }
    if (any) out->add(")");
}

}  // namespace

bool Engine::add_line(const Region &region, MappedArray<char> *out) {
    constexpr const char *kPrefix = "pyhugetext: ";
    Room<0> room;
    char *const memory = room.take(sizeof(Line));
    if (!memory) return false;
    auto *line = new (memory) Line;
    describe(region, line);
    return out->append(kPrefix, length(kPrefix)) && out->append(line->data, line->size) &&
           out->push('\n');
}

void Engine::report(MappedArray<char> *out) {
    const Locked locked;
    if (!locked.ok()) return;
    look_at_all();
    if (!machine_.ok() || !last_.ok()) {
        Buffer<512> line;
        const Outcome &why = machine_.ok() ? last_ : machine_;
        line.add("pyhugetext: not active: ")
            .add(kStatusTexts[static_cast<int>(why.status)].sentence)
            .add("\n");
        if (!out->append(line.data, line.size)) return;
    }
    for (Region *region : table_.regions()) {
        if (!region->text_bytes) continue;
        const size_t before = out->size();
        if (!add_line(*region, out)) return;
        const u32 sum =
            crc32(reinterpret_cast<const u8 *>(out->data()) + before, out->size() - before);
        if (sum == region->told)
            (void)out->resize(before);
        else
            region->told = sum;
    }
}

}  // namespace pht
