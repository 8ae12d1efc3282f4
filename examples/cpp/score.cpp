// Runs a network that `cloudchamber export` wrote, with ONNX Runtime's C++ API.
//
//     score NETWORK.onnx INPUT OUTPUT [THREADS]
//
// INPUT, little-endian (dump.py writes such files): four int64, the numbers of points, edges, columns of `point` and
// columns of `edge`; then the inputs in the order of the manifest, row by row: point (float32), layer (int64), and for
// a network that judges edges: edge (float32), sender, receiver (int64). OUTPUT gets what the network gives, float32.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

// The values of an input and their shape; kept here, since a tensor of ONNX Runtime only refers to them.
template <typename T> struct Rows {
    std::vector<T> values;
    std::vector<int64_t> shape;

    Rows(std::istream& file, std::vector<int64_t> size) : shape(std::move(size)) {
        int64_t count = 1;
        for (const int64_t n : shape) count *= n;
        values.resize(static_cast<std::size_t>(count));
        file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(T)));
        if (!file) throw std::runtime_error("the input ends too early");
    }

    Ort::Value tensor(const Ort::MemoryInfo& memory) {
        return Ort::Value::CreateTensor<T>(memory, values.data(), values.size(), shape.data(), shape.size());
    }
};

int run(const std::string& model, const std::string& input, const std::string& output, int threads) {
    std::ifstream file(input, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + input);
    std::array<int64_t, 4> size{};
    file.read(reinterpret_cast<char*>(size.data()), sizeof(size));
    if (!file) throw std::runtime_error("the input ends too early");
    const auto [points, edges, pointColumns, edgeColumns] = size;

    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "score");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    Ort::Session session(environment, model.c_str(), options);
    Ort::AllocatorWithDefaultOptions allocator;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < session.GetInputCount(); ++i)
        names.emplace_back(session.GetInputNameAllocated(i, allocator).get());
    const std::string result = session.GetOutputNameAllocated(0, allocator).get();

    const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Rows<float> point(file, {points, pointColumns});
    Rows<int64_t> layer(file, {points});
    const bool judgesEdges = names.size() == 5;
    const int64_t rows = judgesEdges ? edges : 0;
    Rows<float> edge(file, {rows, edgeColumns});
    Rows<int64_t> sender(file, {rows}), receiver(file, {rows});
    std::vector<Ort::Value> inputs;
    inputs.push_back(point.tensor(memory));
    inputs.push_back(layer.tensor(memory));
    if (judgesEdges) {
        inputs.push_back(edge.tensor(memory));
        inputs.push_back(sender.tensor(memory));
        inputs.push_back(receiver.tensor(memory));
    }

    std::vector<const char*> inputNames;
    for (const std::string& name : names) inputNames.push_back(name.c_str());
    const char* outputName = result.c_str();
    const auto found = session.Run(Ort::RunOptions{}, inputNames.data(), inputs.data(), inputs.size(), &outputName, 1);
    const std::size_t count = found[0].GetTensorTypeAndShapeInfo().GetElementCount();

    std::ofstream out(output, std::ios::binary);
    out.write(reinterpret_cast<const char*>(found[0].GetTensorData<float>()),
              static_cast<std::streamsize>(count * sizeof(float)));
    if (!out.flush()) throw std::runtime_error("cannot write " + output);
    std::cout << points << " points, " << edges << " edges -> " << count << " values of " << result << '\n';
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
