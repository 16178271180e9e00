// Python as the engine's host: the GIL is given back while the engine works, and taken between two
// entries that are built, for the signal handlers of the program. What they raise ends the building
// and is the program's.
#pragma once

#include <Python.h>

#include "engine/engine.h"

namespace pht {

class PythonHost : NonCopyable {
public:
    PythonHost() : thread_(PyEval_SaveThread()) {}
    ~PythonHost() { PyEval_RestoreThread(thread_); }

    Patience patience() { return {ends, this}; }

private:
    static bool ends(void *context) {
        auto *host = static_cast<PythonHost *>(context);
        PyEval_RestoreThread(host->thread_);
        const bool raised = PyErr_CheckSignals() < 0;
        host->thread_ = PyEval_SaveThread();
        return raised;
    }

    PyThreadState *thread_;
};

}  // namespace pht
