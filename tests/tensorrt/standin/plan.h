// Plans of the stand-in's, and the elements of tensors.
//
// A plan is text, a line an item:
//
//   input NAME TYPE DIM...             TYPE: f32, f16, i32, bool, u8, i64; DIM: a size, or the name of one
//   output NAME TYPE DIM... = INPUT    element i is element i of INPUT (over again where that is shorter) plus 1000
//                                      times the output's number from 1; a name with `?` is known late: its half
//   cache NAME TYPE DIM... = INPUT UPDATE START
//                                      output and input of one memory, [1, heads, room, width]: from position START[0]
//                                      on, as many as UPDATE, [1, S, D], has rows, element w of head h is element
//                                      (h * width + w) % D of that row, plus 1000 times the output's number
//   profile NAME=LEAST:USUAL:MOST...   sizes by name
#pragma once

#include "standin.h"

#include <NvInfer.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <sstream>

using namespace nvinfer1;
using standin::breach;

namespace {

using Sizes = std::map<std::string, int64_t>;

struct Dim {
    int64_t size = -1;  // -1 where it has a name
    std::string name;
    bool late = false;
};

struct Tensor {
    std::string name, source, update, start;
    DataType type{};
    bool input = false;
    std::vector<Dim> dims;
};

struct Plan {
    std::vector<Tensor> tensors;
    std::vector<std::map<std::string, std::vector<int64_t>>> profiles;

    Tensor const* find(char const* name) const {
        for (auto const& tensor : tensors)
            if (name != nullptr && tensor.name == name) return &tensor;
        return nullptr;
    }
};

size_t bytes_of(DataType type) {
    switch (type) {
    case DataType::kFLOAT:
    case DataType::kINT32: return 4;
    case DataType::kHALF: return 2;
    case DataType::kBOOL:
    case DataType::kUINT8: return 1;
    case DataType::kINT64: return 8;
    default: breach("a type of tensor that the stand-in does not know");
    }
}

bool type_of(std::string const& text, DataType& type) {
    static std::map<std::string, DataType> const types{{"f32", DataType::kFLOAT}, {"f16", DataType::kHALF},
                                                       {"i32", DataType::kINT32}, {"bool", DataType::kBOOL},
                                                       {"i64", DataType::kINT64}, {"i8", DataType::kINT8},
                                                       {"u8", DataType::kUINT8}};
    auto const found = types.find(text);
    if (found != types.end()) type = found->second;
    return found != types.end();
}

bool read_tensor(std::istringstream& words, bool input, bool cache, Plan& plan) {
    Tensor tensor;
    std::string type, word;
    tensor.input = input;
    if (!(words >> tensor.name >> type) || !type_of(type, tensor.type)) return false;
    while (words >> word && word != "=") {
        Dim dim;
        if (word.find_first_not_of("0123456789") == std::string::npos) dim.size = std::stoll(word);
        else dim.late = word.back() == '?', dim.name = word.substr(0, word.size() - (dim.late ? 1 : 0));
        tensor.dims.push_back(dim);
    }
    if (!input && !(words >> tensor.source)) return false;
    if (cache && !(words >> tensor.update >> tensor.start)) return false;
    plan.tensors.push_back(tensor);
    return true;
}

bool read_profile(std::istringstream& words, Plan& plan) {
    std::map<std::string, std::vector<int64_t>> profile;
    std::string word;
    while (words >> word) {
        auto const at = word.find('=');
        long long least = 0, usual = 0, most = 0;
        if (at == std::string::npos || std::sscanf(word.c_str() + at, "=%lld:%lld:%lld", &least, &usual, &most) != 3)
            return false;
        profile[word.substr(0, at)] = {least, usual, most};
    }
    plan.profiles.push_back(profile);
    return true;
}

bool read(void const* bytes, size_t length, Plan& plan) {
    std::istringstream lines(std::string(static_cast<char const*>(bytes), length));
    std::string line, kind;
    while (std::getline(lines, line)) {
        std::istringstream words(line);
        if (!(words >> kind)) continue;
        bool const known = kind == "input"     ? read_tensor(words, true, false, plan)
                           : kind == "output"  ? read_tensor(words, false, false, plan)
                           : kind == "cache"   ? read_tensor(words, false, true, plan)
                           : kind == "profile" ? read_profile(words, plan)
                                               : false;
        if (!known) return false;
    }
    if (plan.profiles.empty()) plan.profiles.emplace_back();
    return !plan.tensors.empty();
}

// Shape under the sizes that are known; -1 for the others. Late ones are settled once the computation is.
Dims shape_of(Tensor const& tensor, Sizes const& sizes, bool settled) {
    Dims shape{};
    shape.nbDims = static_cast<int32_t>(tensor.dims.size());
    for (int32_t i = 0; i < shape.nbDims; ++i) {
        Dim const& dim = tensor.dims[i];
        auto const known = sizes.find(dim.name);
        if (dim.name.empty()) shape.d[i] = dim.size;
        else if (known == sizes.end() || (dim.late && !settled)) shape.d[i] = -1;
        else shape.d[i] = dim.late ? (known->second + 1) / 2 : known->second;
    }
    return shape;
}

Dims no_shape() {
    Dims shape{};
    shape.nbDims = -1;
    return shape;
}

size_t count_of(Dims const& shape) {
    size_t count = 1;
    for (int32_t i = 0; i < shape.nbDims; ++i) count *= static_cast<size_t>(shape.d[i]);
    return count;
}

// Halves that the tests use are whole numbers below 2048, so their bits are few.
double half_to_double(uint16_t bits) {
    int const exponent = (bits >> 10) & 31;
    double const mantissa = exponent == 0 ? 0.0 : 1.0 + (bits & 1023) / 1024.0;
    double value = exponent == 0 ? 0.0 : mantissa;
    for (int i = 15; i < exponent; ++i) value *= 2;
    for (int i = exponent; i < 15; ++i) value /= 2;
    return (bits & 0x8000) != 0 ? -value : value;
}

uint16_t double_to_half(double value) {
    uint16_t const sign = value < 0 ? 0x8000 : 0;
    double rest = value < 0 ? -value : value;
    int exponent = 15;
    if (rest == 0) return sign;
    while (rest >= 2) rest /= 2, ++exponent;
    while (rest < 1) rest *= 2, --exponent;
    return static_cast<uint16_t>(sign | (exponent << 10) | static_cast<int>((rest - 1) * 1024));
}

double get(DataType type, void const* from, size_t i) {
    switch (type) {
    case DataType::kFLOAT: return static_cast<float const*>(from)[i];
    case DataType::kHALF: return half_to_double(static_cast<uint16_t const*>(from)[i]);
    case DataType::kINT32: return static_cast<int32_t const*>(from)[i];
    case DataType::kBOOL:
    case DataType::kUINT8: return static_cast<uint8_t const*>(from)[i];
    default: return static_cast<double>(static_cast<int64_t const*>(from)[i]);
    }
}

void put(DataType type, void* to, size_t i, double value) {
    switch (type) {
    case DataType::kFLOAT: static_cast<float*>(to)[i] = static_cast<float>(value); break;
    case DataType::kHALF: static_cast<uint16_t*>(to)[i] = double_to_half(value); break;
    case DataType::kINT32: static_cast<int32_t*>(to)[i] = static_cast<int32_t>(value); break;
    case DataType::kBOOL: static_cast<uint8_t*>(to)[i] = value != 0; break;
    default: static_cast<int64_t*>(to)[i] = static_cast<int64_t>(value); break;
    }
}

}  // namespace
