// Runs a network that `cloudchamber export` wrote, with ONNX Runtime's C++ API.
//
//     score NETWORK.onnx INPUT OUTPUT [THREADS]
//
// INPUT, little-endian (dump.py writes such files): for every input, in the order of the manifest, int64s that tell
// whether its values are float32 (0) or int64 (1), the number of its dimensions (1 or 2) and their sizes; then the
// values, row by row. OUTPUT gets what the network gives, float32.

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

// An input of the network and the memory of its values: a tensor of ONNX Runtime only refers to them.
struct Input {
    std::vector<int64_t> shape;
    std::vector<char> bytes;
    Ort::Value tensor{nullptr};
};

int64_t number(std::istream& file) {
    int64_t value = 0;
    if (!file.read(reinterpret_cast<char*>(&value), sizeof(value))) throw std::runtime_error("the input ends too early");
    return value;
}

template <typename T> void fill(Input& input, std::istream& file) {
    int64_t count = 1;
    for (const int64_t size : input.shape) count *= size;
    input.bytes.resize(static_cast<std::size_t>(count) * sizeof(T));
    if (!file.read(input.bytes.data(), static_cast<std::streamsize>(input.bytes.size())))
        throw std::runtime_error("the input ends too early");
    const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    input.tensor = Ort::Value::CreateTensor<T>(memory, reinterpret_cast<T*>(input.bytes.data()),
                                               static_cast<std::size_t>(count), input.shape.data(), input.shape.size());
}

Input read(std::istream& file) {
    Input input;
    const int64_t integers = number(file), dimensions = number(file);
    if (integers < 0 || integers > 1 || dimensions < 1 || dimensions > 2) throw std::runtime_error("not such an input");
    for (int64_t i = 0; i < dimensions; ++i) input.shape.push_back(number(file));
    for (const int64_t size : input.shape)
        if (size < 0 || size > (int64_t{1} << 31)) throw std::runtime_error("not such an input");
    if (integers)
        fill<int64_t>(input, file);
    else
        fill<float>(input, file);
    return input;
}

int run(const std::string& model, const std::string& from, const std::string& to, int threads) {
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "score");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    Ort::Session session(environment, model.c_str(), options);
    Ort::AllocatorWithDefaultOptions allocator;

    std::ifstream file(from, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + from);
    std::vector<Input> inputs;  // moved when it grows, but their values stay where they are
    std::vector<Ort::Value> tensors;
    std::vector<std::string> names;
    std::vector<const char*> pointers;
    for (std::size_t i = 0; i < session.GetInputCount(); ++i) {
        names.emplace_back(session.GetInputNameAllocated(i, allocator).get());
        inputs.push_back(read(file));
        tensors.push_back(std::move(inputs.back().tensor));
    }
    for (const std::string& name : names) pointers.push_back(name.c_str());
    const std::string result = session.GetOutputNameAllocated(0, allocator).get();
    const char* pointer = result.c_str();
    const auto found = session.Run(Ort::RunOptions{}, pointers.data(), tensors.data(), tensors.size(), &pointer, 1);
    const std::size_t count = found[0].GetTensorTypeAndShapeInfo().GetElementCount();

    std::ofstream out(to, std::ios::binary);
    out.write(reinterpret_cast<const char*>(found[0].GetTensorData<float>()),
              static_cast<std::streamsize>(count * sizeof(float)));
    if (!out.flush()) throw std::runtime_error("cannot write " + to);
    std::cout << count << " values of " << result << '\n';
    return 0;
}

int main(int argc, char** argv) {
    if (argc < 4 || argc > 5) {
        std::cerr << "usage: score NETWORK.onnx INPUT OUTPUT [THREADS]\n";
        return 2;
    }
    try {
        return run(argv[1], argv[2], argv[3], argc == 5 ? std::stoi(argv[4]) : 1);
    } catch (const std::exception& error) {
        std::cerr << "score: " << error.what() << '\n';
        return 1;
    }
}
