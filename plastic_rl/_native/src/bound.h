// What bindings share: levels by name, and arrays that are taken as they are.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <string>
#include <vector>

#include "dispatch.h"

namespace nb = nanobind;

using Shape = std::vector<std::size_t>;

inline std::string text(const Shape& shape) {
    std::string written = "(";
    for (std::size_t size : shape) written += (written.size() > 1 ? ", " : "") + std::to_string(size);
    return written + ")";
}

// Where the elements of `value` stand, if it is an array of this type, order and device and of this shape.
template <class Element>
Element* elements(const std::string& name, nb::handle value, const Shape& shape) {
    using Array = nb::ndarray<Element, nb::c_contig, nb::device::cpu>;
    Array array;
    if (!nb::try_cast<Array>(value, array, false)) {
        const char* type = sizeof(Element) == 1 ? "uint8" : sizeof(Element) == 8 ? "int64" : "float32";
        throw nb::type_error((name + " must be a writable array of " + type + " in C order on the CPU, got " +
                              nb::repr(value).c_str() + " " +
                              (nb::hasattr(value, "dtype") ? nb::str(nb::handle(value.attr("dtype"))).c_str() : ""))
                                 .c_str());
    }
    Shape own;
    for (std::size_t axis = 0; axis < array.ndim(); axis++) own.push_back(array.shape(axis));
    if (own != shape)
        throw nb::value_error((name + " must be of shape " + text(shape) + ", got " + text(own)).c_str());
    return array.data();
}

inline const plastic::Level& level_named(const std::string& name) {
    plastic::Levels all = plastic::levels();
    std::string known;
    for (std::size_t i = 0; i < all.count; i++) {
        if (name == all.found[i]->name) return *all.found[i];
        known += std::string(known.empty() ? "" : ", ") + all.found[i]->name;
    }
    throw nb::value_error(("no level " + name + " here; there are " + known).c_str());
}
