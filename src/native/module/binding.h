// What the parts of the binding share.
#pragma once

#include <pybind11/pybind11.h>

#include "engine/engine_api.h"

namespace pht::binding {

// The one engine of the process.
const EngineApi &engine();

// File names are bytes: os.fsdecode's way of keeping those that are not UTF-8.
pybind11::object text(const char *data, size_t size);

// Adds what deals with stores to the module.
void bind_stores(pybind11::module_ &module);

}  // namespace pht::binding
