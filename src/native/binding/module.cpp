// The binding: the engine's functions and plain data for Python. Policy and words are Python's.

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "engine_api.h"
#include "machine.h"

namespace py = pybind11;

namespace {

const pht::EngineApi &engine() {
    // Per interpreter a module of its own, but one engine: the capsule holds its address.
    const py::module_ boot = py::module_::import("pyhugetext._boot");
    const auto capsule = boot.attr("engine");
    const void *pointer = PyCapsule_GetPointer(capsule.ptr(), pht::kCapsule);
    if (!pointer) throw py::error_already_set();
    return *static_cast<const pht::EngineApi *>(pointer);
}

py::tuple outcome(const pht::Outcome &value) {
    return py::make_tuple(static_cast<int>(value.status), static_cast<int>(value.call),
                          static_cast<int>(value.error));
}

pht::Str view(const py::bytes &bytes) {
    char *data = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size)) throw py::error_already_set();
    return {data, static_cast<size_t>(size)};
}

long remap(int backing, pht::u64 minimum_text, pht::u64 private_limit, bool fall_back,
           const py::bytes &include, const py::bytes &exclude, const py::bytes &stores,
           const py::bytes &shm_stores, bool inward) {
    const pht::EngineApi &api = engine();
    const pht::PlainRequest request = {static_cast<pht::Backing>(backing),
                                       minimum_text,
                                       private_limit,
                                       fall_back,
                                       view(include),
                                       view(exclude),
                                       view(stores),
                                       view(shm_stores),
                                       inward};
    long missing;
    {
        const py::gil_scoped_release released;
        missing = api.remap(request);
    }
    if (missing < 0) throw std::bad_alloc();
    return missing;
}

void restore() {
    const pht::EngineApi &api = engine();
    const py::gil_scoped_release released;
    api.restore();
}

py::object text(const char *data, size_t size) {
    // File names are bytes; os.fsdecode's way of keeping those that are not UTF-8.
    PyObject *decoded = PyUnicode_DecodeFSDefaultAndSize(data, static_cast<Py_ssize_t>(size));
    if (!decoded) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(decoded);
}

py::dict region(const pht::Snapshot &snapshot, const pht::RegionView &view) {
    py::dict out;
    out["path"] = text(snapshot.text.data() + view.path, view.path_size);
    std::string build_id;
    for (int i = 0; i < view.build_id.size; ++i) {
        constexpr char kDigits[] = "0123456789abcdef";
        build_id += kDigits[view.build_id.bytes[i] >> 4];
        build_id += kDigits[view.build_id.bytes[i] & 15];
    }
    out["build_id"] = build_id;
    out["low"] = view.low;
    out["high"] = view.high;
    out["text_bytes"] = view.text_bytes;
    out["coverable_bytes"] = view.coverable_bytes;
    out["mapped_bytes"] = view.mapped_bytes;
    out["elapsed_ns"] = view.elapsed_ns;
    out["backing"] = static_cast<int>(view.backing);
    out["outcome"] = outcome(view.outcome);
    out["is_main"] = view.is_main;
    py::list tried;
    for (const pht::Outcome &rung : view.tried) tried.append(outcome(rung));
    out["tried"] = tried;
    py::list pages;
    for (size_t i = 0; i < view.stretches; ++i) {
        const pht::StretchView &page = snapshot.stretches[view.first_stretch + i];
        pages.append(py::make_tuple(page.start, page.end, page.huge, outcome(page.outcome)));
    }
    out["pages"] = pages;
    return out;
}

py::dict snapshot() {
    const pht::EngineApi &api = engine();
    const pht::Snapshot *taken;
    {
        const py::gil_scoped_release released;
        taken = api.take_snapshot();
    }
    if (!taken) throw std::bad_alloc();
    const std::unique_ptr<const pht::Snapshot, void (*)(const pht::Snapshot *)> owner(
        taken, api.free_snapshot);
    py::dict out;
    out["started"] = taken->started;
    out["enabled"] = taken->enabled;
    out["machine"] = outcome(taken->machine);
    out["last"] = outcome(taken->last);
    out["elapsed_ns"] = taken->elapsed_ns;
    py::list regions;
    for (const pht::RegionView &view : taken->regions) regions.append(region(*taken, view));
    out["regions"] = regions;
    return out;
}

template <size_t N> py::tuple names(const char *const (&list)[N]) {
    py::tuple out(N);
    for (size_t i = 0; i < N; ++i) out[i] = list[i];
    return out;
}

bool is_main_interpreter() {
    return PyInterpreterState_Get() == PyInterpreterState_Main();
}

}  // namespace

PYBIND11_MODULE(_native, module, py::mod_gil_not_used(),
                py::multiple_interpreters::per_interpreter_gil()) {
    // Without its other half the import fails, as it does without both.
    engine();
    module.doc() = "Binding of pyhugetext's engine; private.";
    module.attr("BACKINGS") = names(pht::kBackingNames);
    module.attr("STATUSES") = names(pht::kStatusNames);
    module.attr("CALLS") = names(pht::kCallNames);
    module.def("remap", &remap, py::arg("backing"), py::arg("minimum_text"),
               py::arg("private_limit"), py::arg("fall_back"), py::arg("include"),
               py::arg("exclude"), py::arg("stores"), py::arg("shm_stores"),
               py::arg("inward") = false);
    module.def("restore", &restore);
    module.def("snapshot", &snapshot);
    module.def("is_main_interpreter", &is_main_interpreter);
    pht::machine::bind(module);
}
