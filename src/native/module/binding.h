// What the parts of the binding share.
#pragma once

#include <pybind11/pybind11.h>

#include "host/engine_api.h"

namespace pht::binding {

// The one engine of the process.
const EngineApi &engine();

// File names are bytes: os.fsdecode's way of keeping those that are not UTF-8.
pybind11::object text(const char *data, size_t size);

[[noreturn]] void throw_errno(int number);

// What a call comes to that is made without the GIL. What needs Python, as engine(), goes before.
template <class Call> auto without_gil(Call call) {
    const pybind11::gil_scoped_release released;
    return call();
}

// Add what deals with stores, and with the machine, to the module.
void bind_stores(pybind11::module_ &module);
void bind_machine(pybind11::module_ &module);

}  // namespace pht::binding
