// The stores for Python: what `pyhugetext warm`, `store` and `doctor` ask for. What cannot be done
// comes back as (kind, errno, sentence) in the place of None; see builder/trouble.h.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "module/binding.h"

namespace py = pybind11;

namespace pht::binding {

namespace {

// (root, limit, shared_memory, for_everyone)
using SpecTuple = std::tuple<std::string, u64, bool, bool>;

// The texts are as long as the tuple is there.
StoreSpec spec_of(const SpecTuple &from) {
    const auto &[root, limit, shared_memory, for_everyone] = from;
    if (root.find('\0') != std::string::npos) throw py::value_error("a NUL in a store's path");
    StoreSpec spec;
    spec.root = root.c_str();
    spec.limit = limit;
    spec.shared_memory = shared_memory;
    spec.for_everyone = for_everyone;
    return spec;
}

py::object text(const std::string &from) {
    return binding::text(from.data(), from.size());
}

py::object problem(const Trouble &trouble) {
    if (trouble.ok()) return py::none();
    return py::make_tuple(kTroubleNames[static_cast<int>(trouble.kind)], trouble.error,
                          binding::text(trouble.text.data, trouble.text.size));
}

// Items told by a call that knows no exceptions and runs without the GIL.
template <class Item> struct Told {
    std::vector<Item> items;
    bool no_memory = false;

    template <class View> static void add(void *context, const View &view) noexcept {
        auto *told = static_cast<Told *>(context);
        try {
            told->items.emplace_back(view);
        } catch (const std::bad_alloc &) {
            told->no_memory = true;
        }
    }
    void check() const {
        if (no_memory) throw std::bad_alloc();
    }
};

struct Entry {
    explicit Entry(const EntryView &view)
        : name(view.name),
          path(view.path),
          origin(view.origin),
          kernel(view.kernel),
          reason(view.reason.data, view.reason.size),
          item(*view.item),
          state(view.state),
          size(view.size),
          disk(view.disk),
          built(view.built),
          used(view.used) {}

    py::dict dict() const {
        py::dict out;
        out["note"] = item.kind == IndexItem::Kind::note;
        out["name"] = text(name);
        out["original"] = text(origin);
        out["copy"] = text(path);
        out["bias"] = item.bias;
        out["size"] = size;
        out["disk"] = disk;
        out["built"] = built;
        out["used"] = used;
        out["durable"] = item.durable;
        out["image"] = item.image;
        out["state"] = kStateNames[static_cast<int>(state)];
        out["reason"] = text(reason);
        out["kernel"] = text(kernel);
        return out;
    }

    std::string name, path, origin, kernel, reason;
    IndexItem item;
    State state;
    u64 size, disk, built, used;
};

struct Removed {
    explicit Removed(const RemovedView &view) : what(view.what), why(view.why), freed(view.freed) {}
    std::string what, why;
    u64 freed;
};

// Calls without the GIL; the functions of the engine are looked up with it.
template <class Call> Trouble without_gil(Call call) {
    const StoreApi &api = *engine().store;
    const py::gil_scoped_release released;
    return call(api);
}

py::object open(const SpecTuple &from, bool make) {
    const StoreSpec spec = spec_of(from);
    return problem(without_gil([&](const StoreApi &api) { return api.open(spec, make); }));
}

py::tuple entries(const SpecTuple &from) {
    const StoreSpec spec = spec_of(from);
    Told<Entry> told;
    const Trouble trouble = without_gil([&](const StoreApi &api) {
        return api.each_entry(spec, Told<Entry>::add<EntryView>, &told);
    });
    told.check();
    py::list out;
    for (const Entry &entry : told.items) out.append(entry.dict());
    return py::make_tuple(problem(trouble), out);
}

py::tuple verify(const SpecTuple &from, const std::string &name) {
    const StoreSpec spec = spec_of(from);
    Told<Entry> told;
    bool removed = false;
    const Trouble trouble = without_gil([&](const StoreApi &api) {
        return api.verify_entry(spec, name.c_str(), Told<Entry>::add<EntryView>, &told, &removed);
    });
    told.check();
    py::object entry = py::none();
    if (!told.items.empty()) entry = told.items[0].dict();
    return py::make_tuple(problem(trouble), entry, removed);
}

py::tuple heal(const SpecTuple &from, const std::string &name) {
    const StoreSpec spec = spec_of(from);
    Healed healed;
    const Trouble trouble = without_gil(
        [&](const StoreApi &api) { return api.heal_entry(spec, name.c_str(), &healed); });
    py::dict out;
    out["pages"] = healed.pages;
    out["cached"] = healed.cached;
    out["before"] = healed.before;
    out["after"] = healed.after;
    out["reason"] = binding::text(healed.reason.data, healed.reason.size);
    return py::make_tuple(problem(trouble), out);
}

py::tuple prune(const SpecTuple &from) {
    const StoreSpec spec = spec_of(from);
    Told<Removed> told;
    const Trouble trouble = without_gil([&](const StoreApi &api) {
        return api.prune(spec, Told<Removed>::add<RemovedView>, &told);
    });
    told.check();
    py::list out;
    for (const Removed &one : told.items)
        out.append(py::make_tuple(text(one.what), text(one.why), one.freed));
    return py::make_tuple(problem(trouble), out);
}

py::tuple clear(const SpecTuple &from) {
    const StoreSpec spec = spec_of(from);
    u64 freed = 0;
    const Trouble trouble =
        without_gil([&](const StoreApi &api) { return api.clear(spec, &freed); });
    return py::make_tuple(problem(trouble), freed);
}

py::dict warm(const SpecTuple &from, const std::string &path, u64 bias, const std::string &keep) {
    const StoreSpec spec = spec_of(from);
    if (path.find('\0') != std::string::npos) throw py::value_error("a NUL in a path");
    Wanted wanted;
    wanted.path = path.c_str();
    wanted.bias = bias;
    Made made;
    const Trouble trouble = without_gil([&](const StoreApi &api) {
        api.warm(spec, wanted, {keep.data(), keep.size()}, &made);
        return made.problem;
    });
    py::dict out;
    out["status"] = kMadeNames[static_cast<int>(made.status)];
    out["problem"] = problem(trouble);
    out["small"] = made.small;
    out["size"] = made.size;
    out["written"] = made.written;
    out["huge"] = made.looked ? py::object(py::int_(made.huge)) : py::none();
    out["name"] = py::bytes(made.key.data, made.key.size);
    return out;
}

py::tuple verdict_of(const Trouble &trouble, Verdict verdict) {
    return py::make_tuple(problem(trouble), kVerdictNames[static_cast<int>(verdict)]);
}

py::tuple judge_store(const SpecTuple &from) {
    const StoreSpec spec = spec_of(from);
    Verdict verdict = Verdict::unknown;
    const Trouble trouble =
        without_gil([&](const StoreApi &api) { return api.judge(spec, &verdict); });
    return verdict_of(trouble, verdict);
}

std::string remembered(const SpecTuple &from) {
    const StoreSpec spec = spec_of(from);
    Verdict verdict = Verdict::unknown;
    without_gil([&](const StoreApi &api) {
        verdict = api.remembered_verdict(spec);
        return Trouble{};
    });
    return kVerdictNames[static_cast<int>(verdict)];
}

py::object remember_verdict(const SpecTuple &from, const std::string &name) {
    const StoreSpec spec = spec_of(from);
    for (const Verdict verdict : {Verdict::written, Verdict::evicted, Verdict::never})
        if (name == kVerdictNames[static_cast<int>(verdict)])
            return problem(
                without_gil([&](const StoreApi &api) { return api.remember(spec, verdict); }));
    throw py::value_error("no verdict: " + name);
}

py::tuple try_descriptor(int fd) {
    Verdict verdict = Verdict::unknown;
    const Trouble trouble =
        without_gil([&](const StoreApi &api) { return api.try_file(fd, &verdict); });
    return verdict_of(trouble, verdict);
}

py::tuple used(const SpecTuple &from) {
    const StoreSpec spec = spec_of(from);
    u64 bytes = 0;
    const Trouble trouble =
        without_gil([&](const StoreApi &api) { return api.used_bytes(spec, &bytes); });
    return py::make_tuple(problem(trouble), bytes);
}

py::tuple free_of(int directory) {
    long long bytes = 0;
    const Trouble trouble =
        without_gil([&](const StoreApi &api) { return api.free_bytes(directory, &bytes); });
    return py::make_tuple(problem(trouble), bytes);
}

}  // namespace

void bind_stores(py::module_ &module) {
    const py::arg spec("spec");
    module.def("store_open", &open, spec, py::arg("make"));
    module.def("store_entries", &entries, spec);
    module.def("store_verify", &verify, spec, py::arg("name"));
    module.def("store_heal", &heal, spec, py::arg("name"));
    module.def("store_prune", &prune, spec);
    module.def("store_clear", &clear, spec);
    module.def("store_warm", &warm, spec, py::arg("path"), py::arg("bias"), py::arg("keep"));
    module.def("store_judge", &judge_store, spec);
    module.def("store_verdict", &remembered, spec);
    module.def("store_remember", &remember_verdict, spec, py::arg("verdict"));
    module.def("store_used", &used, spec);
    module.def("free_bytes", &free_of, py::arg("directory"));
    module.def("try_file", &try_descriptor, py::arg("fd"));
}

}  // namespace pht::binding
