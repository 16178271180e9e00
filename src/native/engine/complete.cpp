// Building what a pass found missing; see builder/missing.h.
#include <pthread.h>

#include "builder/build_time.h"
#include "builder/served.h"
#include "builder/writer.h"
#include "engine/engine.h"
#include "engine/lock.h"

namespace pht {

namespace {

constexpr u64 kTurn = 1'000'000;  // nanoseconds
constexpr int kTurns = 30'000;
constexpr size_t kMostReasons = 64ul * 1024;  // bytes

// The thread that builds, if one does; and whether more was found missing meanwhile.
pthread_t builder;
bool is_building, more;

bool is_mine() {
    return __atomic_load_n(&is_building, __ATOMIC_ACQUIRE) &&
           pthread_equal(builder, pthread_self());
}

bool begin_building(bool wait) {
    for (int i = 0;; ++i) {
        bool expected = false;
        if (__atomic_compare_exchange_n(&is_building, &expected, true, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
            builder = pthread_self();
            return true;
        }
        if (!wait || i == kTurns || sys::pause(kTurn).error() == EINTR) return false;
    }
}

void end_building() {
    __atomic_store_n(&is_building, false, __ATOMIC_RELEASE);
}

// The thread that built is not in the child, and what it held is not the child's.
void after_fork_in_child() {
    StoreWriter::forget_in_child();
    forget_time();
    end_building();
}

bool exchange_more() {
    return __atomic_exchange_n(&more, false, __ATOMIC_RELAXED);
}

}  // namespace

void watch_forks_while_building() {
    pthread_atfork(StoreWriter::prepare_fork, nullptr, after_fork_in_child);
}

bool Engine::copy_request(Request *request, MappedArray<char> *texts) {
    const Locked locked;
    if (!locked.ok() || request_.building == Building::never) return false;
    *request = request_;
    return keep_texts(request, texts);
}

void Engine::tell(Str reason) {
    const Locked locked;
    if (!locked.ok() || reasons_.size() + reason.size > kMostReasons) return;
    for (size_t at = 0; at < reasons_.size(); at += length(reasons_.data() + at) + 1)
        if (equal(str(reasons_.data() + at), reason)) return;
    if (reasons_.append(reason.data, reason.size)) (void)reasons_.push('\0');
}

bool Engine::complete(const Patience &patience, bool wait) {
    __atomic_store_n(&more, true, __ATOMIC_RELAXED);
    if (is_mine() || !begin_building(wait)) return true;
    struct Host {
        Engine *engine;
        const Patience &patience;
        MappedArray<char> texts;
    } own = {this, patience, {}};
    const BuildHost host = {
        &own,
        [](void *context) {
            const auto *self = static_cast<Host *>(context);
            return self->patience.ends(self->patience.context);
        },
        [](void *context, WantedList *wanted) {
            auto *self = static_cast<Host *>(context);
            self->engine->retry(false);
            wanted->clear();
            self->engine->list_missing(wanted);
        },
        [](void *context, Str reason) { static_cast<Host *>(context)->engine->tell(reason); }};
    bool goes_on = true, wanting = false;
    const auto pass_again = [&](bool fall_back) {
        const u64 began = sys::now();
        retry(fall_back);
        spend_time(sys::since(began));
    };
    while (goes_on && exchange_more()) {
        WantedList wanted;
        Request request;
        const bool builds = copy_request(&request, &own.texts);
        if (builds && !has_time(request)) {
            promise(nullptr);
            continue;
        }
        if (!list_missing(&wanted)) break;
        if (!builds || !wanted.size()) {
            wanting = true;
            break;
        }
        goes_on = build_missing(request, host, &wanted);
        promise(&wanted);
        wanting = wanting || wanted.calls_for_pass();
        if (goes_on && __atomic_load_n(&more, __ATOMIC_RELAXED)) pass_again(false);
    }
    if (wanting) pass_again(true);
    end_building();
    return goes_on;
}

void Engine::tidy(const Request &request) {
    if (!watching() || !begin_building(false)) return;
    tidy_memory(request);
    end_building();
}

}  // namespace pht
