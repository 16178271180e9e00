// The module of the start-up path: plain C API, no C++ runtime, because a python that starts ten
// times a second pays for every relocation. It holds an engine; all that is not needed at start
// is in the binding, pyhugetext._native.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "host/host.h"
#include "module/python_host.h"

namespace pht {

namespace {

// A .pth runs twice in a virtual environment, and again in every sub-interpreter: what was started
// is not started again. -1 with what a signal handler of the program raised; nothing else does.
int start_once() {
    if (engine_of_process().started()) return 0;
    {
        PythonHost host;
        engine_of_process().start(host.patience());
    }
    return PyErr_Occurred() ? -1 : 0;
}

int watch_imports();

// begin(): the start-up hook, as the environment says. Imports nothing. Raises what a signal
// handler of the program raised, and nothing else.
PyObject *boot_begin(PyObject *, PyObject *) {
    if (start_once() < 0) return nullptr;
    if (!engine_of_process().settings().off && watch_imports() < 0) PyErr_Clear();
    Py_RETURN_NONE;
}

PyObject *text_or_none(Str text) {
    if (!text.size) Py_RETURN_NONE;
    return PyUnicode_DecodeFSDefaultAndSize(text.data, static_cast<Py_ssize_t>(text.size));
}

// The texts of a list, each ended by a NUL, as a tuple of str.
PyObject *texts_of(Str list) {
    PyObject *out = PyList_New(0);
    for (size_t at = 0; out && at < list.size;) {
        const Str text = str(list.data + at);
        PyObject *item = text_or_none(text);
        if (!item || PyList_Append(out, item) < 0) Py_CLEAR(out);
        Py_XDECREF(item);
        at += text.size + 1;
    }
    PyObject *tuple = out ? PyList_AsTuple(out) : nullptr;
    Py_XDECREF(out);
    return tuple;
}

// Sets out[name], and gives up the reference; false with an exception.
bool set_item(PyObject *out, const char *name, PyObject *value) {
    const bool set = value && PyDict_SetItemString(out, name, value) == 0;
    Py_XDECREF(value);
    return set;
}

PyObject *describe_settings(const Settings &settings) {
    PyObject *out = PyDict_New();
    if (!out) return nullptr;
    const Request &request = settings.request();
    const auto root = [](const char *path) { return text_or_none(path ? str(path) : Str{}); };
    bool whole = set_item(out, "off", PyBool_FromLong(settings.off)) &&
                 set_item(out, "debug", PyBool_FromLong(settings.debug)) &&
                 set_item(out, "backing", PyLong_FromLong(static_cast<long>(request.backing))) &&
                 set_item(out, "building", PyLong_FromLong(static_cast<long>(request.building))) &&
                 set_item(out, "strict", PyBool_FromLong(request.inward)) &&
                 set_item(out, "system_store", root(kSystemStore)) &&
                 set_item(out, "store", root(user_store(request))) &&
                 set_item(out, "shm_store", root(shared_store(request))) &&
                 set_item(out, "problems", texts_of(settings.problems()));
    for (const SizeField &field : kSizeFields)
        whole =
            whole && set_item(out, field.name, PyLong_FromUnsignedLongLong(request.*field.member));
    for (const SizeField &field : kTimeFields) {
        const u64 time = request.*field.member;
        const bool automatic = time == kAutomaticTime;
        if (automatic) Py_INCREF(Py_None);
        whole = whole &&
                set_item(out, field.name, automatic ? Py_None : PyLong_FromUnsignedLongLong(time));
    }
    whole = whole && set_item(out, "include", texts_of(request.include)) &&
            set_item(out, "exclude", texts_of(request.exclude));
    if (!whole) Py_CLEAR(out);
    return out;
}

// settings() -> those of this process, as a dict; settings([b"NAME=value", ...]): of another
// environment.
PyObject *boot_settings(PyObject *, PyObject *arguments) {
    PyObject *entries = nullptr;
    if (!PyArg_ParseTuple(arguments, "|O!", &PyList_Type, &entries)) return nullptr;
    if (!entries) return describe_settings(engine_of_process().settings());
    const Py_ssize_t count = PyList_GET_SIZE(entries);
    auto **environment =
        static_cast<const char **>(PyMem_RawCalloc(static_cast<size_t>(count) + 1, sizeof(char *)));
    if (!environment) return PyErr_NoMemory();
    bool bytes = true;
    for (Py_ssize_t i = 0; i < count; ++i) {
        environment[i] = PyBytes_AsString(PyList_GET_ITEM(entries, i));
        bytes = bytes && environment[i];
    }
    PyObject *out = nullptr;
    if (bytes) {
        const Settings settings(environment);
        out = describe_settings(settings);
    }
    PyMem_RawFree(environment);
    return out;
}

// Looks for new libraries, and has the entries built that they lack. -1 with what a signal handler
// of the program raised meanwhile. `loaded`: see Engine::stale().
int look(bool loaded) {
    if (!engine_of_process().stale(loaded)) return 0;
    {
        PythonHost host;
        engine_of_process().look(host.patience());
    }
    return PyErr_Occurred() ? -1 : 0;
}

// Stands in for ExtensionFileLoader.create_module. In C so that no frame of ours appears in the
// traceback of an import that fails. `original` is the function it stands for.
//
// It looks before the import, too: a module that imports others while it is loaded, as torch does
// with numpy, is looked at before their libraries start threads. Each of the hundreds of page
// tables of a large library costs an interrupt of every processor that runs another thread.
PyObject *create_module(PyObject *original, PyObject *arguments, PyObject *keywords) {
    if (look(false) < 0) return nullptr;
    PyObject *module = PyObject_Call(original, arguments, keywords);
    if (module && look(true) < 0) Py_CLEAR(module);
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
int watch_imports() {
    PyObject *modules = PyImport_GetModuleDict();  // borrowed
    PyObject *external = PyDict_GetItemString(modules, "_frozen_importlib_external");
    if (!external) return 0;
    PyObject *loader = PyObject_GetAttrString(external, "ExtensionFileLoader");
    PyObject *original = loader ? PyObject_GetAttrString(loader, "create_module") : nullptr;
    int result = original ? 0 : -1;
    if (original && !is_our_hook(original)) {
        PyObject *function = PyCFunction_NewEx(&create_module_method, original, nullptr);
        PyObject *method = function ? PyInstanceMethod_New(function) : nullptr;
        result = method ? PyObject_SetAttrString(loader, "create_module", method) : -1;
        Py_XDECREF(method);
        Py_XDECREF(function);
    }
    Py_XDECREF(original);
    Py_XDECREF(loader);
    return result;
}

// watch(): look for new libraries before and after every import of an extension module, in this
// interpreter.
PyObject *boot_watch(PyObject *, PyObject *) {
    if (watch_imports() < 0) return nullptr;
    Py_RETURN_NONE;
}

// is_main_interpreter() -> whether this is the first interpreter of the process.
PyObject *boot_is_main_interpreter(PyObject *, PyObject *) {
    return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

PyMethodDef methods[] = {
    {"begin", boot_begin, METH_NOARGS, nullptr},
    {"settings", boot_settings, METH_VARARGS, nullptr},
    {"watch", boot_watch, METH_NOARGS, nullptr},
    {"is_main_interpreter", boot_is_main_interpreter, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

int exec_module(PyObject *module) {
    const EngineApi &engine = engine_of_process();
    (void)engine.settings();  // before anything is built, at start or by a command
    engine.interpreter_at(reinterpret_cast<u64>(&Py_IsInitialized));
    PyObject *capsule = PyCapsule_New(const_cast<EngineApi *>(&engine), kCapsule, nullptr);
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

}  // namespace pht

PyMODINIT_FUNC PyInit__boot() {
    return PyModuleDef_Init(&pht::definition);
}
