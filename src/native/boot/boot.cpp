// The module of the start-up path: plain C API, no C++ runtime, because a python that starts ten
// times a second pays for every relocation. It holds the engine; all that is not needed at start
// is in the binding, pyhugetext._native.

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <sys/auxv.h>
#include <sys/vfs.h>

#include "engine_api.h"

namespace {

using pht::Engine;

long api_remap(const pht::PlainRequest &plain) {
    return Engine::get().remap(plain);
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

const pht::EngineApi api = {api_remap,          api_restore,         api_take_snapshot,
                            api_free_snapshot,  pht::open_elsewhere, pht::read_head,
                            api_plan_elsewhere, pht::find_entries};

// start(backing, minimum_text, private_limit, fall_back, include, exclude, stores, shm_stores)
// -> how many regions wait for a store entry, None when it was called before.
PyObject *boot_start(PyObject *, PyObject *arguments) {
    int backing, fall_back;
    unsigned long long minimum_text, private_limit;
    const char *text[4];
    Py_ssize_t size[4];
    if (!PyArg_ParseTuple(arguments, "iKKpy#y#y#y#", &backing, &minimum_text, &private_limit,
                          &fall_back, &text[0], &size[0], &text[1], &size[1], &text[2], &size[2],
                          &text[3], &size[3]))
        return nullptr;
    // A .pth runs twice in a virtual environment, and again in every sub-interpreter.
    if (Engine::get().started()) Py_RETURN_NONE;
    pht::Str list[4];
    for (int i = 0; i < 4; ++i) list[i] = {text[i], static_cast<size_t>(size[i])};
    const pht::PlainRequest request = {static_cast<pht::Backing>(backing),
                                       minimum_text,
                                       private_limit,
                                       fall_back != 0,
                                       list[0],
                                       list[1],
                                       list[2],
                                       list[3]};
    long missing;
    Py_BEGIN_ALLOW_THREADS;
    missing = Engine::get().remap(request);
    Py_END_ALLOW_THREADS;
    if (missing < 0) return PyErr_NoMemory();
    return PyLong_FromLong(missing);
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

// filesystem(fd) -> its type, as in statfs(2).
PyObject *boot_filesystem(PyObject *, PyObject *argument) {
    const long fd = PyLong_AsLong(argument);
    if (fd == -1 && PyErr_Occurred()) return nullptr;
    struct statfs info;
    if (fstatfs(static_cast<int>(fd), &info) < 0) return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(info.f_type);
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

// Looks for new libraries; returns whether Python has something to do: entries to build, or
// decisions to report.
bool poll(bool report) {
    if (!Engine::get().stale()) return false;
    bool decided;
    size_t missing;
    Py_BEGIN_ALLOW_THREADS;
    decided = Engine::get().poll(&missing);
    Py_END_ALLOW_THREADS;
    return missing > 0 || (decided && report);
}

// Stands in for ExtensionFileLoader.create_module. In C so that no frame of ours appears in the
// traceback of an import that fails. `state` is (the original function, what to call when there is
// something to do, whether decisions are reported).
PyObject *create_module(PyObject *state, PyObject *arguments, PyObject *keywords) {
    PyObject *module = PyObject_Call(PyTuple_GET_ITEM(state, 0), arguments, keywords);
    if (!module || !poll(PyTuple_GET_ITEM(state, 2) == Py_True)) return module;
    PyObject *result = PyObject_CallNoArgs(PyTuple_GET_ITEM(state, 1));
    if (!result) PyErr_Clear();
    Py_XDECREF(result);
    return module;
}

PyMethodDef create_module_method = {
    "create_module", reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(create_module)),
    METH_VARARGS | METH_KEYWORDS, "Create an uninitialized extension module"};

bool is_our_hook(PyObject *method) {
    if (!PyInstanceMethod_Check(method)) return false;
    PyObject *function = PyInstanceMethod_GET_FUNCTION(method);
    return PyCFunction_Check(function) &&
           PyCFunction_GetFunction(function) ==
               reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(create_module));
}

// watch_imports(loader class, callback, report): look for new libraries after each import by it.
PyObject *boot_watch_imports(PyObject *, PyObject *arguments) {
    PyObject *loader, *callback, *report;
    if (!PyArg_ParseTuple(arguments, "OOO!", &loader, &callback, &PyBool_Type, &report))
        return nullptr;
    PyObject *original = PyObject_GetAttrString(loader, "create_module");
    if (!original) return nullptr;
    // An instance method read from its class comes out as the plain function it holds.
    const bool ours = is_our_hook(original) ||
                      (PyCFunction_Check(original) &&
                       PyCFunction_GetFunction(original) ==
                           reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(create_module)));
    if (ours) {
        Py_DECREF(original);
        Py_RETURN_FALSE;
    }
    PyObject *state = PyTuple_Pack(3, original, callback, report);
    Py_DECREF(original);
    if (!state) return nullptr;
    PyObject *function = PyCFunction_NewEx(&create_module_method, state, nullptr);
    Py_DECREF(state);
    if (!function) return nullptr;
    PyObject *method = PyInstanceMethod_New(function);
    Py_DECREF(function);
    if (!method) return nullptr;
    const int result = PyObject_SetAttrString(loader, "create_module", method);
    Py_DECREF(method);
    if (result < 0) return nullptr;
    Py_RETURN_TRUE;
}

// secure_mode() -> whether the environment comes from somebody less privileged; getauxval(3).
PyObject *boot_secure_mode(PyObject *, PyObject *) {
    return PyBool_FromLong(static_cast<long>(getauxval(AT_SECURE)));
}

// is_main_interpreter() -> whether this is the first interpreter of the process.
PyObject *boot_is_main_interpreter(PyObject *, PyObject *) {
    return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

PyMethodDef methods[] = {
    {"start", boot_start, METH_VARARGS, nullptr},
    {"missing", boot_missing, METH_NOARGS, nullptr},
    {"probe", boot_probe, METH_VARARGS, nullptr},
    {"filesystem", boot_filesystem, METH_O, nullptr},
    {"retry", boot_retry, METH_O, nullptr},
    {"watch_imports", boot_watch_imports, METH_VARARGS, nullptr},
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
