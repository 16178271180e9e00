// PYHUGETEXT_REPORT: what was done, as JSON in a file, when the program ends.
#include <unistd.h>

#include <new>

#include "engine/sentence.h"
#include "kernel/descriptor.h"
#include "kernel/sys_write.h"
#include "preload/json.h"
#include "preload/preload.h"

namespace pht::preload {

namespace {

void add_reason(const Outcome &outcome, Json *json) {
    Room<0> room;
    char *const memory = room.take(sizeof(Line));
    if (!memory) return json->text({});
    auto *const line = new (memory) Line;
    add_sentence(outcome, line);
    json->text({line->data, line->size});
}

void add_region(const Snapshot &snapshot, const RegionView &view, Json *json) {
    const auto number = [&](const char *name, u64 value) {
        json->key(name);
        json->number(value);
    };
    json->begin_object();
    json->key("path");
    json->text({snapshot.text.data() + view.path, view.path_size});
    number("low", view.low);
    number("high", view.high);
    number("text_bytes", view.text_bytes);
    number("coverable_bytes", view.coverable_bytes);
    number("mapped_bytes", view.mapped_bytes);
    json->key("backing");
    json->text(str(name_of(view.backing)));
    json->key("status");
    json->text(str(kStatusTexts[static_cast<int>(view.outcome.status)].name));
    json->key("reason");
    add_reason(view.outcome, json);
    json->end_object();
}

// Why nothing is on huge pages.
void add_why_inactive(const Snapshot &snapshot, const Settings &settings, Json *json) {
    if (settings.off) return json->text(str("turned off by PYHUGETEXT=0"));
    if (!snapshot.machine.ok()) return add_reason(snapshot.machine, json);
    if (!snapshot.last.ok()) return add_reason(snapshot.last, json);
    if (!snapshot.enabled) return json->text(str("put back by restore()"));
    for (const RegionView &view : snapshot.regions)
        if (view.coverable_bytes && !view.outcome.ok()) return add_reason(view.outcome, json);
    json->text(str("no mapped object is large enough"));
}

void describe(const Snapshot &snapshot, const Settings &settings, Json *json) {
    json->begin_object();
    json->key("version");
    json->text(str(PYHUGETEXT_VERSION));
    json->key("pid");
    json->number(sys::process_id());
    json->key("command");
    MappedArray<char> command;
    const bool room = command.resize(kPageSize);
    const auto size = sys::read_link("/proc/self/exe", command.data(), room ? kPageSize : 0);
    json->text({command.data(), size.ok() ? size.value() : 0});
    bool active = false;
    for (const RegionView &view : snapshot.regions) active = active || view.mapped_bytes;
    json->key("active");
    json->truth(active);
    json->key("reason");
    if (active)
        json->text({});
    else
        add_why_inactive(snapshot, settings, json);
    json->key("elapsed_ns");
    json->number(snapshot.elapsed_ns);
    json->key("settings_problems");
    json->begin_list();
    each_text(settings.problems(), [&](Str problem) {
        json->text(problem);
        return true;
    });
    json->end_list();
    json->key("regions");
    json->begin_list();
    for (const RegionView &view : snapshot.regions)
        if (view.text_bytes) add_region(snapshot, view, json);
    json->end_list();
    json->end_object();
}

// Children inherit the setting: `%p` keeps their reports apart.
bool name_file(Str pattern, MappedArray<char> *out) {
    Buffer<24> number;
    number.add_decimal(sys::process_id());
    bool whole = true;
    for (size_t i = 0; i < pattern.size && whole; ++i) {
        const bool is_number =
            pattern.data[i] == '%' && i + 1 < pattern.size && pattern.data[i + 1] == 'p';
        whole = is_number ? out->append(number.data, number.size) : out->push(pattern.data[i]);
        i += is_number;
    }
    return whole && out->push('\0');
}

// Neither through a link that somebody left at that name, nor into what is no file of the user's.
bool may_write_to(int fd) {
    sys::FileIdentity file;
    return sys::identify(fd, &file).ok() && (file.mode & S_IFMT) == S_IFREG &&
           file.owner == geteuid() && file.links == 1;
}

void write_file(Str text, const char *path) {
    constexpr int kFlags = O_WRONLY | O_NONBLOCK | O_NOCTTY;
    const Descriptor fd(sys::create_at(AT_FDCWD, path, kFlags, 0600));
    if (!fd.ok() || !may_write_to(fd) || !sys::ftruncate(fd, 0).ok()) return;
    while (text.size) {
        const auto got = sys::write(fd, text.data, text.size);
        if (!got.ok() || !got.value()) return;
        text = {text.data + got.value(), text.size - got.value()};
    }
}

}  // namespace

void write_report(const Settings &settings) {
    MappedArray<char> path;
    if (!settings.report().size || !name_file(settings.report(), &path)) return;
    const Snapshot *taken = own_engine.take_snapshot(false);
    if (!taken) return;
    Json json;
    describe(*taken, settings, &json);
    own_engine.free_snapshot(taken);
    write_file(json.done(), path.data());
}

}  // namespace pht::preload
