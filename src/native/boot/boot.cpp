// The module of the start-up path: plain C API, no C++ runtime, because a python that starts ten
// times a second pays for every relocation. It holds the engine; all that is not needed at start
// is in the binding, pyhugetext._native.

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <sys/vfs.h>

#include <new>

#include "defaults.h"
#include "engine_api.h"

namespace {

using pht::Engine;

long api_remap(const pht::PlainRequest &plain) {
    return Engine::get().remap(plain, pht::Table::Scope::candidates);
}

void api_restore() {
    Engine::get().restore();
}

const pht::Snapshot *api_take_snapshot() {
    return Engine::get().take_snapshot();
}

void api_free_snapshot(const pht::Snapshot *snapshot) {
    Engine::free_snapshot(snapshot);
}

const pht::Snapshot *api_plan_elsewhere(const pht::ForeignObject &object) {
    return Engine::plan_elsewhere(object);
}

void api_memory_room(pht::MemoryRoom *out) {
    pht::memory_room(out);
}

void api_free_layout(const pht::Layout *layout) {
    auto *owned = const_cast<pht::Layout *>(layout);
    owned->~Layout();
    pht::unmap_memory(owned, sizeof *owned);
}

// Needs no lock, and so no memory of the engine's.
pht::LaidOut api_lay_out(int fd, pht::u64 size, pht::u64 bias, const pht::Layout **out) {
    void *memory = pht::map_memory(sizeof(pht::Layout));
    if (!memory) return {nullptr, -pht::sys::kEnomem};
    auto *layout = new (memory) pht::Layout;
    const pht::LaidOut done = pht::lay_out(fd, size, bias, layout);
    if (done.ok())
        *out = layout;
    else
        api_free_layout(layout);
    return done;
}

const pht::EngineApi api = {api_remap,          api_restore,         api_take_snapshot,
                            api_free_snapshot,  pht::open_elsewhere, pht::read_head,
                            api_plan_elsewhere, pht::find_entries,   api_memory_room,
                            api_lay_out,        api_free_layout,     &pht::store_api};

// A .pth runs twice in a virtual environment, and again in every sub-interpreter: what was started
// is not started again. Returns how many regions wait for a store entry; -1 with MemoryError.
long start_once(const pht::PlainRequest &request) {
    if (Engine::get().started()) return 0;
    long missing;
    Py_BEGIN_ALLOW_THREADS;
    missing = Engine::get().remap(request, pht::Table::Scope::fresh);
    Py_END_ALLOW_THREADS;
    if (missing < 0) PyErr_NoMemory();
    return missing;
}

// Calls a function of a module of the package; -1 with an exception.
int call_python(const char *module_name, const char *function) {
    PyObject *module = PyImport_ImportModule(module_name);
    if (!module) return -1;
    PyObject *result = PyObject_CallMethod(module, function, nullptr);
    Py_DECREF(module);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

// After a pass that left something to Python: entries to build, decisions to tell. The program's
// signal handlers wait until it is over: what they raise is meant for the program.
int run_after() {
    const pht::sys::SignalsBlocked signals;
    return call_python("pyhugetext._after", "run");
}

int watch_imports(bool report);

// begin(): the start-up hook. As the environment says; Python is asked only where it says
// something, so that an ordinary start imports nothing but this module.
PyObject *boot_begin(PyObject *, PyObject *) {
    if (pht::is_configured()) {
        if (call_python("pyhugetext._configured", "begin") < 0) return nullptr;
        Py_RETURN_NONE;
    }
    const pht::DefaultRequest request;
    const long missing = start_once(request.plain());
    if (missing < 0 || watch_imports(false) < 0 || (missing > 0 && run_after() < 0)) return nullptr;
    Py_RETURN_NONE;
}

// default_request() -> what begin() starts with, as start() takes it.
PyObject *boot_default_request(PyObject *, PyObject *) {
    const pht::DefaultRequest request;
    const pht::PlainRequest &plain = request.plain();
    return Py_BuildValue("(iKKiy#y#y#y#)", static_cast<int>(plain.backing), plain.minimum_text,
                         plain.private_limit, static_cast<int>(plain.building), plain.include.data,
                         static_cast<Py_ssize_t>(plain.include.size), plain.exclude.data,
                         static_cast<Py_ssize_t>(plain.exclude.size), plain.stores.data,
                         static_cast<Py_ssize_t>(plain.stores.size), plain.shm_stores.data,
                         static_cast<Py_ssize_t>(plain.shm_stores.size));
}

// start(backing, minimum_text, private_limit, building, include, exclude, stores, shm_stores)
// -> how many regions wait for a store entry.
PyObject *boot_start(PyObject *, PyObject *arguments) {
    int backing, building;
    unsigned long long minimum_text, private_limit;
    const char *text[4];
    Py_ssize_t size[4];
    if (!PyArg_ParseTuple(arguments, "iKKiy#y#y#y#", &backing, &minimum_text, &private_limit,
                          &building, &text[0], &size[0], &text[1], &size[1], &text[2], &size[2],
                          &text[3], &size[3]))
        return nullptr;
    pht::Str list[4];
    for (int i = 0; i < 4; ++i) list[i] = {text[i], static_cast<size_t>(size[i])};
    const pht::PlainRequest request = {static_cast<pht::Backing>(backing),
                                       minimum_text,
                                       private_limit,
                                       static_cast<pht::Building>(building),
                                       list[0],
                                       list[1],
                                       list[2],
                                       list[3]};
    const long missing = start_once(request);
    return missing < 0 ? nullptr : PyLong_FromLong(missing);
}

// missing() -> [(path, load bias modulo 2 MiB), ...] of the regions that wait for a store entry.
PyObject *boot_missing(PyObject *, PyObject *) {
    // Copied under the engine's lock first: making Python objects may run any code.
    struct Entry {
        char path[4096];
        unsigned long long bias;
    };
    struct Entries {
        Entry *list = nullptr;
        size_t count = 0;
    } entries;
    Engine::get().each_missing(
        [](void *context, const pht::Region &region) {
            auto *out = static_cast<Entries *>(context);
            const pht::Str path = region.path_text();
            if (path.size == 0 || path.size >= sizeof(Entry::path)) return;
            void *grown = PyMem_RawRealloc(out->list, (out->count + 1) * sizeof(Entry));
            if (!grown) return;
            out->list = static_cast<Entry *>(grown);
            Entry &entry = out->list[out->count++];
            pht::copy(entry.path, path.data, path.size);
            entry.path[path.size] = 0;
            entry.bias = region.object.load_bias % pht::kHugeSize;
        },
        &entries);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < entries.count; ++i) {
        const Entry &entry = entries.list[i];
        PyObject *item = Py_BuildValue("(NK)", PyUnicode_DecodeFSDefault(entry.path), entry.bias);
        if (!item || PyList_Append(list, item) < 0) Py_CLEAR(list);
        Py_XDECREF(item);
    }
    PyMem_RawFree(entries.list);
    return list;
}

// probe(fd, offset, size, collapse) -> bytes of a file the kernel maps in 2 MiB pages when it is
// mapped as text is: what it really does, tried. OSError where it cannot be mapped.
PyObject *boot_probe(PyObject *, PyObject *arguments) {
    int fd, collapse;
    unsigned long long offset, size;
    if (!PyArg_ParseTuple(arguments, "iKKp", &fd, &offset, &size, &collapse)) return nullptr;
    pht::u64 bytes = 0;
    long result;
    Py_BEGIN_ALLOW_THREADS;
    result = Engine::probe(fd, offset, size, collapse != 0, &bytes);
    Py_END_ALLOW_THREADS;
    if (result < 0) {
        errno = static_cast<int>(-result);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromUnsignedLongLong(bytes);
}

// shared_allowance(configured, present) -> what copies in shared memory may be, all together.
PyObject *boot_shared_allowance(PyObject *, PyObject *arguments) {
    unsigned long long configured, present;
    if (!PyArg_ParseTuple(arguments, "KK", &configured, &present)) return nullptr;
    pht::MemoryRoom room;
    pht::memory_room(&room);
    return PyLong_FromUnsignedLongLong(pht::shared_allowance(room, configured, present));
}

// filesystem(fd) -> its type, as in statfs(2).
PyObject *boot_filesystem(PyObject *, PyObject *argument) {
    const long fd = PyLong_AsLong(argument);
    if (fd == -1 && PyErr_Occurred()) return nullptr;
    struct statfs info;
    if (fstatfs(static_cast<int>(fd), &info) < 0) return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(static_cast<long>(info.f_type));
}

// retry(fall_back) -> how many still wait; another pass after entries were built.
PyObject *boot_retry(PyObject *, PyObject *fall_back) {
    const int wanted = PyObject_IsTrue(fall_back);
    if (wanted < 0) return nullptr;
    size_t missing;
    Py_BEGIN_ALLOW_THREADS;
    missing = Engine::get().retry(wanted != 0);
    Py_END_ALLOW_THREADS;
    return PyLong_FromSize_t(missing);
}

// Looks for new libraries and has Python do what is its part: entries to build, decisions to
// report. What goes wrong is ours alone; -1 with what a signal handler of the program raised
// (KeyboardInterrupt, SystemExit: for a signal that another thread got).
int look(bool report) {
    if (!Engine::get().stale()) return 0;
    bool decided;
    size_t missing;
    Py_BEGIN_ALLOW_THREADS;
    decided = Engine::get().poll(&missing);
    Py_END_ALLOW_THREADS;
    if ((missing == 0 && !(decided && report)) || run_after() == 0) return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Clear();
    return 0;
}

// Stands in for ExtensionFileLoader.create_module. In C so that no frame of ours appears in the
// traceback of an import that fails. `state` is (the original function, whether decisions are
// reported).
//
// It looks before the import, too: a module that imports others while it is loaded, as torch does
// with numpy, is looked at before their libraries start threads. Each of the hundreds of page
// tables of a large library costs an interrupt of every processor that runs another thread.
PyObject *create_module(PyObject *state, PyObject *arguments, PyObject *keywords) {
    const bool report = PyTuple_GET_ITEM(state, 1) == Py_True;
    if (look(report) < 0) return nullptr;
    PyObject *module = PyObject_Call(PyTuple_GET_ITEM(state, 0), arguments, keywords);
    if (module && look(report) < 0) Py_CLEAR(module);
    return module;
}

PyMethodDef create_module_method = {
    "create_module", reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(create_module)),
    METH_VARARGS | METH_KEYWORDS, "Create an uninitialized extension module"};

// An instance method read from its class comes out as the plain function it holds.
bool is_our_hook(PyObject *method) {
    PyObject *function =
        PyInstanceMethod_Check(method) ? PyInstanceMethod_GET_FUNCTION(method) : method;
    return PyCFunction_Check(function) &&
           PyCFunction_GetFunction(function) ==
               reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(create_module));
}

// Puts create_module() in front of the import system's own, once. -1 with an exception.
int watch_imports(bool report) {
    PyObject *modules = PyImport_GetModuleDict();  // borrowed
    PyObject *external = PyDict_GetItemString(modules, "_frozen_importlib_external");
    if (!external) return 0;
    PyObject *loader = PyObject_GetAttrString(external, "ExtensionFileLoader");
    PyObject *original = loader ? PyObject_GetAttrString(loader, "create_module") : nullptr;
    int result = original ? 0 : -1;
    if (original && !is_our_hook(original)) {
        PyObject *state = PyTuple_Pack(2, original, report ? Py_True : Py_False);
        PyObject *function =
            state ? PyCFunction_NewEx(&create_module_method, state, nullptr) : nullptr;
        PyObject *method = function ? PyInstanceMethod_New(function) : nullptr;
        result = method ? PyObject_SetAttrString(loader, "create_module", method) : -1;
        Py_XDECREF(method);
        Py_XDECREF(function);
        Py_XDECREF(state);
    }
    Py_XDECREF(original);
    Py_XDECREF(loader);
    return result;
}

// watch(report): look for new libraries before and after every import of an extension module, in
// this interpreter.
PyObject *boot_watch(PyObject *, PyObject *report) {
    const int wanted = PyObject_IsTrue(report);
    if (wanted < 0 || watch_imports(wanted != 0) < 0) return nullptr;
    Py_RETURN_NONE;
}

// secure_mode() -> whether the environment comes from somebody less privileged.
PyObject *boot_secure_mode(PyObject *, PyObject *) {
    return PyBool_FromLong(pht::in_secure_mode());
}

// is_main_interpreter() -> whether this is the first interpreter of the process.
PyObject *boot_is_main_interpreter(PyObject *, PyObject *) {
    return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

PyMethodDef methods[] = {
    {"begin", boot_begin, METH_NOARGS, nullptr},
    {"default_request", boot_default_request, METH_NOARGS, nullptr},
    {"start", boot_start, METH_VARARGS, nullptr},
    {"missing", boot_missing, METH_NOARGS, nullptr},
    {"probe", boot_probe, METH_VARARGS, nullptr},
    {"shared_allowance", boot_shared_allowance, METH_VARARGS, nullptr},
    {"filesystem", boot_filesystem, METH_O, nullptr},
    {"retry", boot_retry, METH_O, nullptr},
    {"watch", boot_watch, METH_O, nullptr},
    {"secure_mode", boot_secure_mode, METH_NOARGS, nullptr},
    {"is_main_interpreter", boot_is_main_interpreter, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

int exec_module(PyObject *module) {
    PyObject *capsule = PyCapsule_New(const_cast<pht::EngineApi *>(&api), pht::kCapsule, nullptr);
    if (!capsule) return -1;
    const int result = PyObject_SetAttrString(module, "engine", capsule);
    Py_DECREF(capsule);
    return result;
}

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void *>(exec_module)},
#ifdef Py_MOD_PER_INTERPRETER_GIL_SUPPORTED
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_MOD_GIL_NOT_USED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_boot",
                          "Start-up of pyhugetext; private.",
                          0,
                          methods,
                          slots,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__boot() {
    return PyModuleDef_Init(&definition);
}
