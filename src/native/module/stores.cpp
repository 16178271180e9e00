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

// (root, limit, shared_memory, for_everyone, for_images, better)
using SpecTuple = std::tuple<std::string, u64, bool, bool, bool, std::string>;

// The texts are as long as the tuple is there.
StoreSpec spec_of(const SpecTuple &from) {
    const auto &[root, limit, shared_memory, for_everyone, for_images, better] = from;
    if ((root + better).find('\0') != std::string::npos)
        throw py::value_error("a NUL in a store's path");
    StoreSpec spec;
    spec.root = root.c_str();
    spec.limit = limit;
    spec.shared_memory = shared_memory;
    spec.for_everyone = for_everyone;
    spec.for_images = for_images;
    spec.better = better.empty() ? nullptr : better.c_str();
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
          used(view.used),
          pages(view.pages),
          present(view.present) {}

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
        out["pages"] = pages;
        out["present"] = present;
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
    size_t pages, present;
};

struct Removed {
    explicit Removed(const RemovedView &view) : what(view.what), why(view.why), freed(view.freed) {}
    std::string what, why;
    u64 freed;
};

template <class Call> auto ask(Call call) {
    const StoreApi &api = *engine().store;
    return without_gil([&] { return call(api); });
}

StoreSpec given(const SpecTuple &from) {
    return spec_of(from);
}
int given(int fd) {
    return fd;
}
const char *shown(Verdict verdict) {
    return kVerdictNames[static_cast<int>(verdict)];
}
template <class Number> Number shown(Number number) {
    return number;
}
// A call that tells one thing of a store or a descriptor: (what was wrong, or None; the thing).
template <auto call, class Value, class From> py::tuple told(const From &from) {
    const auto of = given(from);
    Value value{};
    const Trouble trouble = ask([&](const StoreApi &api) { return (api.*call)(of, &value); });
    return py::make_tuple(problem(trouble), shown(value));
}

py::object open(const SpecTuple &from, bool make) {
    const StoreSpec spec = spec_of(from);
    return problem(ask([&](const StoreApi &api) { return api.open(spec, make); }));
}

py::tuple entries(const SpecTuple &from) {
    const StoreSpec spec = spec_of(from);
    Told<Entry> told;
    const Trouble trouble = ask([&](const StoreApi &api) {
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
    const Trouble trouble = ask([&](const StoreApi &api) {
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
    const Trouble trouble =
        ask([&](const StoreApi &api) { return api.heal_entry(spec, name.c_str(), &healed); });
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
    const Trouble trouble = ask([&](const StoreApi &api) {
        return api.prune(spec, Told<Removed>::add<RemovedView>, &told);
    });
    told.check();
    py::list out;
    for (const Removed &one : told.items)
        out.append(py::make_tuple(text(one.what), text(one.why), one.freed));
    return py::make_tuple(problem(trouble), out);
}

py::dict warm(const SpecTuple &from, const std::string &path, u64 bias, const std::string &keep,
              bool files, bool used) {
    const StoreSpec spec = spec_of(from);
    if (path.find('\0') != std::string::npos) throw py::value_error("a NUL in a path");
    Wanted wanted;
    wanted.path = path.c_str();
    wanted.bias = bias;
    wanted.whole = !used;
    if (files) wanted.itself = Itself::to_ask;
    Made made;
    const Trouble trouble = ask([&](const StoreApi &api) {
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

const char *remembered(const SpecTuple &from) {
    const StoreSpec spec = spec_of(from);
    return shown(ask([&](const StoreApi &api) { return api.remembered_verdict(spec); }));
}

py::object remember_verdict(const SpecTuple &from, const std::string &name) {
    const StoreSpec spec = spec_of(from);
    for (const Verdict verdict :
         {Verdict::written, Verdict::evicted, Verdict::never, Verdict::collapsed})
        if (name == shown(verdict))
            return problem(ask([&](const StoreApi &api) { return api.remember(spec, verdict); }));
    throw py::value_error("no verdict: " + name);
}

}  // namespace

void bind_stores(py::module_ &module) {
    const py::arg spec("spec");
    module.def("store_open", &open, spec, py::arg("make"));
    module.def("store_entries", &entries, spec);
    module.def("store_verify", &verify, spec, py::arg("name"));
    module.def("store_heal", &heal, spec, py::arg("name"));
    module.def("store_prune", &prune, spec);
    module.def("store_clear", &told<&StoreApi::clear, u64, SpecTuple>, spec);
    module.def("store_warm", &warm, spec, py::arg("path"), py::arg("bias"), py::arg("keep"),
               py::arg("files"), py::arg("used"));
    module.def("store_judge", &told<&StoreApi::judge, Verdict, SpecTuple>, spec);
    module.def("store_verdict", &remembered, spec);
    module.def("store_remember", &remember_verdict, spec, py::arg("verdict"));
    module.def("store_used", &told<&StoreApi::used_bytes, u64, SpecTuple>, spec);
    module.def("free_bytes", &told<&StoreApi::free_bytes, long long, int>, py::arg("directory"));
    module.def("try_file", &told<&StoreApi::try_file, Verdict, int>, py::arg("fd"));
}

}  // namespace pht::binding
