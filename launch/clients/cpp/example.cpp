// Shows a picture to a node and prints what it says: once, or as the frames of a camera.
//
//   example ADDRESS PICTURE COMMAND [FRAMES]
//
// Exit status: 0 where the object was found, 1 where it was not, 2 where something failed.
#include <fstream>
#include <iostream>
#include <iterator>

#include "sam4mllm.hpp"

namespace v1 = sam4mllm::v1;

static std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("open `" + path + "`");
  return {std::istreambuf_iterator<char>(file), {}};
}

static std::string encoding_of(const std::string& path) {
  const auto dot = path.rfind('.');
  const auto extension = dot == std::string::npos ? "" : path.substr(dot + 1);
  return extension == "jpg" ? "jpeg" : extension;
}

static void print(const v1::TargetResult& result) {
  std::cout << v1::Verdict_Name(result.verdict()) << " confidence " << result.confidence() << '\n';
  for (const auto& instance : result.instances()) {
    const auto mask = sam4mllm::decode(instance.mask());
    const auto& box = instance.box();
    std::cout << "  instance " << instance.instance_id() << ' ' << v1::Origin_Name(instance.origin()) << " box "
              << box.x1() << ' ' << box.y1() << ' ' << box.x2() << ' ' << box.y2() << " pixels " << mask.area() << '\n';
  }
}

// Frames until the language model has answered, then `frames` more; the last answer's verdict.
static v1::Verdict watch(sam4mllm::Node& node, const v1::Frame& frame, const std::string& command, int frames) {
  auto stream = node.perceive();
  stream.add_target("it", command);
  auto verdict = v1::VERDICT_PENDING;
  for (int left = frames; left > 0;) {
    stream.send(frame);
    const auto response = stream.next();
    if (!response) throw std::runtime_error("the stream ended");
    if (response->has_rejected()) throw std::runtime_error(response->rejected().error().message());
    const auto& result = response->frame().targets(0);
    verdict = result.verdict();
    if (verdict == v1::VERDICT_PENDING) continue;
    std::cout << "frame " << response->frame().seq() << ' ';
    print(result);
    --left;
  }
  stream.close();
  while (stream.next()) {
  }
  return verdict;
}

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    std::cerr << "usage: " << argv[0] << " ADDRESS PICTURE COMMAND [FRAMES]\n";
    return 2;
  }
  try {
    sam4mllm::Node node(argv[1]);
    const auto frame = sam4mllm::file_frame(read_file(argv[2]), encoding_of(argv[2]));
    if (argc == 5) return watch(node, frame, argv[3], std::stoi(argv[4])) == v1::VERDICT_FOUND ? 0 : 1;
    const auto answer = node.segment(frame, argv[3]);
    print(answer.result());
    return answer.result().verdict() == v1::VERDICT_FOUND ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
