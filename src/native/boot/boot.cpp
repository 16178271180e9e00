// The module of the start-up path: plain C API, no C++ runtime, because a python that starts ten
// times a second pays for every relocation. It holds the engine; all that is not needed at start
// is in the binding, pyhugetext._native.

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/auxv.h>

#include <new>

#include "engine_api.h"

namespace {

using pht::Engine;

bool api_remap(const pht::PlainRequest &plain) {
    pht::Request request;
    request.backing = plain.backing;
    request.minimum_text = plain.minimum_text;
    request.private_limit = plain.private_limit;
    if (!request.include.append(plain.include.data, plain.include.size)) return false;
    if (!request.exclude.append(plain.exclude.data, plain.exclude.size)) return false;
    Engine::get().remap(static_cast<pht::Request &&>(request));
    return true;
}

void api_restore() {
    Engine::get().restore();
}

const pht::Snapshot *api_take_snapshot() {
    void *memory = pht::allocate(sizeof(pht::Snapshot));
    if (!memory) return nullptr;
    auto *snapshot = new (memory) pht::Snapshot;
    Engine::get().snapshot(snapshot);
    return snapshot;
}

void api_free_snapshot(const pht::Snapshot *snapshot) {
    auto *owned = const_cast<pht::Snapshot *>(snapshot);
    owned->~Snapshot();
    pht::release(owned, sizeof(pht::Snapshot));
}

const pht::EngineApi api = {api_remap, api_restore, api_take_snapshot, api_free_snapshot};

// start(backing, minimum_text, private_limit, include, exclude) -> whether this call did it.
PyObject *boot_start(PyObject *, PyObject *arguments) {
    int backing;
    unsigned long long minimum_text, private_limit;
    const char *include, *exclude;
    Py_ssize_t include_size, exclude_size;
    if (!PyArg_ParseTuple(arguments, "iKKy#y#", &backing, &minimum_text, &private_limit, &include,
                          &include_size, &exclude, &exclude_size))
        return nullptr;
    // A .pth runs twice in a virtual environment, and again in every sub-interpreter.
    if (Engine::get().started()) Py_RETURN_FALSE;
    const pht::PlainRequest request = {static_cast<pht::Backing>(backing),
                                       minimum_text,
                                       private_limit,
                                       {include, static_cast<size_t>(include_size)},
                                       {exclude, static_cast<size_t>(exclude_size)}};
    bool done;
    Py_BEGIN_ALLOW_THREADS;
    done = api_remap(request);
    Py_END_ALLOW_THREADS;
    if (!done) return PyErr_NoMemory();
    Py_RETURN_TRUE;
}

bool poll() {
    if (!Engine::get().stale()) return false;
    bool decided;
    Py_BEGIN_ALLOW_THREADS;
    decided = Engine::get().poll();
    Py_END_ALLOW_THREADS;
    return decided;
}

// Stands in for ExtensionFileLoader.create_module. In C so that no frame of ours appears in the
// traceback of an import that fails. `state` is (the original function, report or None).
PyObject *create_module(PyObject *state, PyObject *arguments, PyObject *keywords) {
    PyObject *module = PyObject_Call(PyTuple_GET_ITEM(state, 0), arguments, keywords);
    if (!module || !poll()) return module;
    PyObject *report = PyTuple_GET_ITEM(state, 1);
    if (report != Py_None) {
        PyObject *result = PyObject_CallNoArgs(report);
        if (!result) PyErr_Clear();
        Py_XDECREF(result);
    }
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

// watch_imports(loader class, report or None): look for new libraries after each import by it.
PyObject *boot_watch_imports(PyObject *, PyObject *arguments) {
    PyObject *loader, *report;
    if (!PyArg_ParseTuple(arguments, "OO", &loader, &report)) return nullptr;
    PyObject *original = PyObject_GetAttrString(loader, "create_module");
    if (!original) return nullptr;
    // An instance method read from its class comes out as the plain function it holds.
    const bool ours =
        is_our_hook(original) ||
        (PyCFunction_Check(original) &&
         PyCFunction_GetFunction(original) ==
             reinterpret_cast<PyCFunction>(reinterpret_cast<void *>(create_module)));
    if (ours) {
        Py_DECREF(original);
        Py_RETURN_FALSE;
    }
    PyObject *state = PyTuple_Pack(2, original, report);
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

PyMethodDef methods[] = {
    {"start", boot_start, METH_VARARGS, nullptr},
    {"watch_imports", boot_watch_imports, METH_VARARGS, nullptr},
    {"secure_mode", boot_secure_mode, METH_NOARGS, nullptr},
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
