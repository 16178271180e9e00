// The binding: the engine's functions and plain data for Python. Policy and words are Python's.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "module/binding.h"
#include "module/python_host.h"

namespace py = pybind11;

namespace pht::binding {

const EngineApi &engine() {
    // Per interpreter a module of its own, but one engine: the capsule holds its address.
    const py::module_ boot = py::module_::import("pyhugetext._boot");
    const auto capsule = boot.attr("engine");
    const void *pointer = PyCapsule_GetPointer(capsule.ptr(), kCapsule);
    if (!pointer) throw py::error_already_set();
    return *static_cast<const EngineApi *>(pointer);
}

py::object text(const char *data, size_t size) {
    PyObject *decoded = PyUnicode_DecodeFSDefaultAndSize(data, static_cast<Py_ssize_t>(size));
    if (!decoded) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(decoded);
}

void throw_errno(int number) {
    errno = number;
    PyErr_SetFromErrno(PyExc_OSError);
    throw py::error_already_set();
}

namespace {

py::tuple outcome(const Outcome &value) {
    return py::make_tuple(static_cast<int>(value.status), static_cast<int>(value.call),
                          static_cast<int>(value.error));
}

Str view(const py::bytes &bytes) {
    char *data = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size)) throw py::error_already_set();
    return {data, static_cast<size_t>(size)};
}

// The request of the settings, with what is given by name in place of its parts. `texts` keeps the
// lists that are given: bytes, each text ended by a NUL.
Request request_with(const py::kwargs &given, std::vector<py::bytes> *texts) {
    Request request = engine().settings().request();
    for (const auto &[key, value] : given) {
        const auto name = key.cast<std::string>();
        bool known = true;
        if (name == "backing")
            request.backing = static_cast<Backing>(value.cast<int>());
        else if (name == "building")
            request.building = static_cast<Building>(value.cast<int>());
        else if (name == "inward")
            request.inward = request.inward || value.cast<bool>();  // strict stays strict
        else
            known = false;
        const auto take_number = [&request, &known, &name, number = value](const SizeField &field) {
            if (name != field.name) return;
            request.*field.member = number.cast<u64>();
            known = true;
        };
        for (const SizeField &field : kSizeFields) take_number(field);
        for (const SizeField &field : kTimeFields) take_number(field);
        for (const ListField &field : kListFields) {
            if (name != field.name) continue;
            texts->push_back(value.cast<py::bytes>());
            request.*field.member = view(texts->back());
            known = true;
        }
        if (!known) throw py::type_error("remap: there is no " + name);
    }
    return request;
}

// Another pass, as the settings say but for what is given.
long remap(const py::kwargs &given) {
    const EngineApi &api = engine();
    std::vector<py::bytes> texts;
    const Request request = request_with(given, &texts);
    const long missing = without_gil([&] { return api.remap(request); });
    if (missing < 0 && missing != kBusy) throw std::bad_alloc();
    return missing;
}

// Builds what the last remap() found missing; raises what a signal handler raised meanwhile.
void complete() {
    const EngineApi &api = engine();
    bool whole;
    {
        PythonHost host;
        whole = api.complete(host.patience());
    }
    if (!whole && PyErr_Occurred()) throw py::error_already_set();
}

bool restore() {
    return without_gil(engine().restore);
}

py::bytes bytes_of(const BuildId &id) {
    return {reinterpret_cast<const char *>(id.bytes), static_cast<size_t>(id.size)};
}

py::dict region(const Snapshot &snapshot, const RegionView &view) {
    py::dict out;
    out["path"] = text(snapshot.text.data() + view.path, view.path_size);
    out["build_id"] = bytes_of(view.build_id).attr("hex")();
    out["low"] = view.low;
    out["high"] = view.high;
    out["text_bytes"] = view.text_bytes;
    out["coverable_bytes"] = view.coverable_bytes;
    out["mapped_bytes"] = view.mapped_bytes;
    out["elapsed_ns"] = view.elapsed_ns;
    out["backing"] = static_cast<int>(view.backing);
    out["outcome"] = outcome(view.outcome);
    py::list tried;
    for (const Outcome &rung : view.tried) tried.append(outcome(rung));
    out["tried"] = tried;
    py::list pages;
    for (size_t i = 0; i < view.page_runs; ++i) {
        const PageRunView &page = snapshot.page_runs[view.first_page_run + i];
        pages.append(py::make_tuple(page.start, page.end, page.huge, outcome(page.outcome)));
    }
    out["pages"] = pages;
    py::list texts;
    for (size_t i = 0; i < view.texts; ++i) {
        const TextRange &span = snapshot.texts[view.first_text + i];
        texts.append(py::make_tuple(span.start, span.end));
    }
    out["texts"] = texts;
    return out;
}

using OwnedSnapshot = std::unique_ptr<const Snapshot, void (*)(const Snapshot *)>;

OwnedSnapshot owned(const Snapshot *taken, const EngineApi &api) {
    if (!taken) throw std::bad_alloc();
    return {taken, api.free_snapshot};
}

py::dict snapshot() {
    const EngineApi &api = engine();
    const OwnedSnapshot taken = owned(without_gil([&] { return api.take_snapshot(true); }), api);
    py::dict out;
    out["started"] = taken->started;
    out["enabled"] = taken->enabled;
    out["machine"] = outcome(taken->machine);
    out["last"] = outcome(taken->last);
    out["elapsed_ns"] = taken->elapsed_ns;
    py::list regions;
    for (const RegionView &view : taken->regions) regions.append(region(*taken, view));
    out["regions"] = regions;
    py::list reasons;
    for (size_t at = 0; at < taken->reasons.size();) {
        const Str reason = str(taken->reasons.data() + at);
        reasons.append(text(reason.data, reason.size));
        at += reason.size + 1;
    }
    out["reasons"] = reasons;
    return out;
}

int open_elsewhere(int directory, const py::bytes &name, int way) {
    const EngineApi &api = engine();
    const std::string path = name;
    const auto fd = without_gil(
        [&] { return api.open_elsewhere(directory, path.c_str(), static_cast<Way>(way)); });
    if (!fd.ok()) throw_errno(fd.error());
    return fd.value();
}

py::tuple read_head(int path_fd, u32 dev_major, u32 dev_minor, u64 inode) {
    const EngineApi &api = engine();
    const std::unique_ptr<Elf64_Phdr[]> headers(new Elf64_Phdr[kMostHeaders]);
    ElfHead head;
    const Outcome result = without_gil(
        [&] { return api.read_head(path_fd, dev_major, dev_minor, inode, headers.get(), &head); });
    return py::make_tuple(
        outcome(result), head.fixed, bytes_of(head.build_id),
        py::bytes(reinterpret_cast<const char *>(headers.get()), head.count * sizeof(Elf64_Phdr)));
}

// (start, end, offset, inode, device major, device minor, permissions, whether it is swapped)
using MappingTuple = std::tuple<u64, u64, u64, u64, u32, u32, std::string, bool>;

py::dict plan_elsewhere(u64 load_bias, const py::bytes &headers, bool is_main, u32 dev_major,
                        u32 dev_minor, u64 inode, int backing, const py::bytes &build_id,
                        const std::vector<MappingTuple> &mappings) {
    const EngineApi &api = engine();
    const Str bytes = view(headers);
    std::vector<Elf64_Phdr> table(bytes.size / sizeof(Elf64_Phdr));
    if (!table.empty()) std::memcpy(table.data(), bytes.data, table.size() * sizeof(Elf64_Phdr));
    BuildId id;
    const Str read = view(build_id);
    for (; id.size < min(read.size, sizeof id.bytes); ++id.size)
        id.bytes[id.size] = static_cast<u8>(read.data[id.size]);
    std::vector<ProcessMapping> foreign;
    for (const auto &[start, end, offset, node, major, minor, permissions, swapped] : mappings) {
        const auto has = [&p = permissions](size_t at, char c) {
            return p.size() > at && p[at] == c;
        };
        foreign.push_back({{start, end, offset, node, major, minor, has(0, 'r'), has(1, 'w'),
                            has(2, 'x'), has(3, 's')},
                           swapped});
    }
    const ProcessObject object = {
        load_bias, table.data(),   table.size(),  is_main,
        dev_major, dev_minor,      inode,         static_cast<Backing>(backing),
        id,        foreign.data(), foreign.size()};
    const OwnedSnapshot taken = owned(without_gil([&] { return api.plan_elsewhere(object); }), api);
    return region(*taken, taken->regions[0]);
}

py::bytes find_entries(int pagemap, u64 start, size_t count) {
    const EngineApi &api = engine();
    std::string marks(count, '\0');
    const auto result = without_gil([&] {
        return api.find_entries(pagemap, start, count, reinterpret_cast<u8 *>(marks.data()));
    });
    if (!result.ok()) throw_errno(result.error());
    return marks;
}

py::dict memory_room() {
    MemoryRoom room;
    engine().memory_room(&room);
    const auto size = [](u64 bytes) -> py::object {
        if (bytes == sys::kUnlimited) return py::none();
        return py::int_(bytes);
    };
    py::dict out;
    out["version"] = room.version;
    out["group"] = text(room.group.data, room.group.size);
    out["limit"] = size(room.limit);
    out["used"] = room.used;
    out["free"] = size(room.free);
    out["addresses"] = size(room.addresses);
    out["data"] = size(room.data);
    out["together"] = size(room.together);
    out["known"] = outcome(room.known);
    return out;
}

// What copies in shared memory may be, all together.
u64 shared_allowance(u64 configured, u64 present) {
    MemoryRoom room;
    engine().memory_room(&room);
    return engine().shared_allowance(room, configured, present);
}

// Bytes of a file the kernel maps in 2 MiB pages when it is mapped as text is: what it really does,
// tried. OSError where it cannot be mapped.
u64 probe(int fd, u64 offset, u64 size, bool collapse) {
    const EngineApi &api = engine();
    u64 bytes = 0;
    const auto result = without_gil([&] { return api.probe(fd, offset, size, collapse, &bytes); });
    if (!result.ok()) throw_errno(result.error());
    return bytes;
}

// What is laid out where in a copy; see builder/layout.h.
py::dict layout(const Layout &made) {
    const auto *bytes = reinterpret_cast<const char *>(made.bytes.data());
    py::list pieces, patches, ranges;
    for (const CopyPiece &piece : made.pieces)
        pieces.append(py::make_tuple(piece.at, piece.origin, piece.length));
    for (const Patch &patch : made.patches)
        patches.append(py::make_tuple(patch.at, py::bytes(bytes + patch.from, patch.size)));
    for (const Range &range : made.ranges)
        ranges.append(py::make_tuple(range.address, range.length, range.offset));
    py::dict out;
    out["refused"] = py::none();
    out["pieces"] = pieces;
    out["patches"] = patches;
    out["ranges"] = ranges;
    out["size"] = made.size;
    out["build_id"] = bytes_of(made.build_id);
    out["build_id_at"] = made.build_id_at;
    out["header_size"] = made.header_size;
    out["uses"] = py::bytes(reinterpret_cast<const char *>(made.uses.data()), made.uses.size());
    return out;
}

py::dict lay_out(int fd, u64 size, u64 bias) {
    const EngineApi &api = engine();
    const Layout *made = nullptr;
    const LaidOut result = without_gil([&] { return api.lay_out(fd, size, bias, &made); });
    if (result.error) throw_errno(result.error);
    if (result.refused) {
        py::dict out;
        out["refused"] = result.refused;
        return out;
    }
    const std::unique_ptr<const Layout, void (*)(const Layout *)> owner(made, api.free_layout);
    return layout(*made);
}

template <size_t N> py::tuple names(const char *const (&list)[N]) {
    py::tuple out(N);
    for (size_t i = 0; i < N; ++i) out[i] = list[i];
    return out;
}

py::list texts(const char *StatusText::*part) {
    py::list out;
    for (const StatusText &text : kStatusTexts) out.append(text.*part);
    return out;
}

void bind_engine(py::module_ &module) {
    module.attr("BACKINGS") = names(kBackingNames);
    module.attr("STATUSES") = py::tuple(texts(&StatusText::name));
    module.attr("SENTENCES") = py::tuple(texts(&StatusText::sentence));
    module.attr("BUSY") = kBusy;
    module.attr("CALLS") = names(kCallNames);
    module.def("remap", &remap);
    module.def("complete", &complete);
    module.def("restore", &restore);
    module.def("snapshot", &snapshot);
    module.def("open_elsewhere", &open_elsewhere, py::arg("directory"), py::arg("name"),
               py::arg("way"));
    module.def("read_head", &read_head, py::arg("path_fd"), py::arg("dev_major"),
               py::arg("dev_minor"), py::arg("inode"));
    module.def("plan_elsewhere", &plan_elsewhere, py::arg("load_bias"), py::arg("headers"),
               py::arg("is_main"), py::arg("dev_major"), py::arg("dev_minor"), py::arg("inode"),
               py::arg("backing"), py::arg("build_id"), py::arg("mappings"));
    module.def("find_entries", &find_entries, py::arg("pagemap"), py::arg("start"),
               py::arg("count"));
    module.def("memory_room", &memory_room);
    module.def("lay_out", &lay_out, py::arg("fd"), py::arg("size"), py::arg("bias"));
    module.def("shared_allowance", &shared_allowance, py::arg("configured"), py::arg("present"));
    module.def("probe", &probe, py::arg("fd"), py::arg("offset"), py::arg("size"),
               py::arg("collapse"));
}

}  // namespace

}  // namespace pht::binding

PYBIND11_MODULE(_native, module, py::mod_gil_not_used(),
                py::multiple_interpreters::per_interpreter_gil()) {
    // Without its other half the import fails, as it does without both.
    pht::binding::engine();
    module.doc() = "Binding of pyhugetext's engine; private.";
    pht::binding::bind_engine(module);
    pht::binding::bind_stores(module);
    pht::binding::bind_machine(module);
}
