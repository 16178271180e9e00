// What a machine does with huge pages, asked and timed, for `pyhugetext doctor`.
#pragma once

#include <pybind11/pybind11.h>

namespace pht::machine {

// Adds address_of, link_cells, chase_cells, ask_prctl and open_counter to the module.
void bind(pybind11::module_ &module);

}  // namespace pht::machine
