#include "host/host.h"

#include <unistd.h>

namespace pht {

namespace {

using Scope = Table::Scope;

// Which file stderr was when the engine was started. What has its number later may be another, and
// nobody's to write to.
sys::FileIdentity first_stderr;
constexpr int kStderr = 2;

void remember_stderr() {
    (void)sys::identify(kStderr, &first_stderr);
}

void write_to_stderr(const MappedArray<char> &text) {
    sys::FileIdentity now;
    if (!sys::identify(kStderr, &now).ok() || now.inode != first_stderr.inode ||
        now.dev_major != first_stderr.dev_major || now.dev_minor != first_stderr.dev_minor)
        return;
    for (size_t at = 0; at < text.size();) {
        const ssize_t got = write(kStderr, text.data() + at, text.size() - at);
        if (got <= 0) return;
        at += static_cast<size_t>(got);
    }
}

void report_settings(const Settings &settings) {
    MappedArray<char> out;
    const auto add = [&](Str text) { return out.append(text.data, text.size); };
    const Str problems = settings.problems();
    bool kept = true;
    for (size_t at = 0; at < problems.size;) {
        const Str problem = str(problems.data + at);
        kept = kept && add(str("pyhugetext: setting: ")) && add(problem) && out.push('\n');
        at += problem.size + 1;
    }
    if (settings.off)
        kept = kept && add(str("pyhugetext: not active: turned off by PYHUGETEXT=0\n"));
    if (kept) write_to_stderr(out);
}

void report_decisions() {
    MappedArray<char> out;
    Engine::get().report(&out);
    write_to_stderr(out);
}

}  // namespace

const Settings &settings_of_process() {
    const Settings &settings = Settings::of_process();
    if (settings.request().inward) try_unexecuted();
    return settings;
}

void start(const Settings &settings, const Patience &patience, bool frugal) {
    if (settings.debug) {
        remember_stderr();
        report_settings(settings);
    }
    if (settings.off) return;
    Request request = settings.request();
    request.frugal = frugal;
    const long missing = Engine::get().remap(request, Scope::fresh);
    if (missing > 0) Engine::get().complete(patience, false);
    Engine::get().tidy(settings.request());
    if (settings.debug) report_decisions();
}

void look(const Settings &settings, const Patience &patience) {
    size_t missing;
    const bool decided = Engine::get().poll(&missing);
    if (missing > 0) Engine::get().complete(patience, false);
    if (decided && settings.debug) report_decisions();
}

}  // namespace pht
