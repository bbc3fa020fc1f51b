// The Python module plastic_rl._native._core; its signatures stand in ../_core.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "level.h"

namespace nb = nanobind;

namespace {

using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<std::string> names() {
    std::vector<std::string> result;
    for (const char* const* name = plastic::levels(); *name; ++name) result.emplace_back(*name);
    return result;
}

float total(const Floats& values, const std::string& name) {
    const plastic::Level* level = plastic::level(name.c_str());
    if (!level) throw nb::value_error(("no level " + name + " on this machine").c_str());
    const float* data = values.data();
    const std::size_t size = values.size();
    nb::gil_scoped_release released;
    return level->sum(data, size);
}

}  // namespace

NB_MODULE(_core, module) {
    module.doc() = "The compiled core: the same functions at every instruction-set level.";
    module.def("levels", &names, "Names of the levels that this processor can run, best last.");
    module.def("total", &total, nb::arg("values"), nb::arg("level"), "Sum of a vector, to the same bits at every level.");
}
