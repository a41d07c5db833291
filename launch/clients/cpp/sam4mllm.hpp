// A thin C++17 layer over the generated stubs of the sam4mllm node: calls that throw, masks as rows of bytes.
//
// Everything else the node says is in the messages themselves; proto/sam4mllm/v1/perception.proto explains them.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "sam4mllm/v1/perception.grpc.pb.h"

namespace sam4mllm {

// A call that the node refused, or that did not reach it.
class CallError : public std::runtime_error {
 public:
  explicit CallError(const grpc::Status& status) : std::runtime_error(status.error_message()), code(status.error_code()) {}
  grpc::StatusCode code;
};

// A mask of a frame as it was sent: row-major, 1 on the object and 0 elsewhere.
struct Bitmap {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::vector<std::uint8_t> bits;

  bool at(std::uint32_t x, std::uint32_t y) const { return bits.at(std::size_t{y} * width + x) != 0; }
  std::size_t area() const {
    std::size_t sum = 0;
    for (auto bit : bits) sum += bit;
    return sum;
  }
};

// COCO's compressed run lengths to a bitmap. Throws std::runtime_error where the runs do not cover the mask exactly.
inline Bitmap decode(const v1::Mask& mask) {
  Bitmap out{mask.width(), mask.height(), {}};
  const std::uint64_t pixels = std::uint64_t{out.width} * out.height;
  const auto bad = [] { return std::runtime_error("read mask: its runs do not cover it"); };
  if (mask.data_case() != v1::Mask::kCocoRle || pixels > (std::uint64_t{1} << 32)) throw bad();
  out.bits.assign(pixels, 0);
  std::vector<std::int64_t> runs;
  std::int64_t value = 0;
  int shift = 0;
  std::uint64_t at = 0;
  for (const char c : mask.coco_rle()) {
    const int chunk = c - 48;
    if (chunk < 0 || chunk > 63 || shift > 55) throw bad();
    value |= static_cast<std::int64_t>(chunk & 0x1f) << shift;
    shift += 5;
    if (chunk & 0x20) continue;
    if (chunk & 0x10) value -= std::int64_t{1} << shift;
    if (runs.size() > 2) value += runs[runs.size() - 2];
    if (value < 0 || static_cast<std::uint64_t>(value) > pixels - at) throw bad();
    // Runs go down the columns; the first of them is off.
    if (runs.size() % 2 == 1) {
      for (std::uint64_t i = at; i < at + static_cast<std::uint64_t>(value); ++i) {
        out.bits[(i % out.height) * out.width + i / out.height] = 1;
      }
    }
    at += static_cast<std::uint64_t>(value);
    runs.push_back(value);
    value = 0;
    shift = 0;
  }
  if (at != pixels || shift != 0) throw bad();
  return out;
}

// The frame of a JPEG, PNG or WebP file; `encoding` is "jpeg", "png" or "webp".
inline v1::Frame file_frame(std::string bytes, const std::string& encoding) {
  v1::Frame frame;
  frame.set_encoding(encoding);
  frame.set_data(std::move(bytes));
  return frame;
}

// A frame of raw pixels, as sensor_msgs/Image has them: "rgb8", "bgr8", "mono8", ...; `step` bytes from row to row.
inline v1::Frame raw_frame(const void* data, std::uint32_t width, std::uint32_t height, std::uint32_t step,
                           const std::string& encoding) {
  v1::Frame frame;
  frame.set_encoding(encoding);
  frame.set_width(width);
  frame.set_height(height);
  frame.set_step(step);
  frame.set_data(data, std::size_t{step} * height);
  return frame;
}

// How a node is reached: TLS where there are credentials, and a bearer token where it is not empty.
struct Access {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  std::string token;
};

class Stream;

// A connection to a node. Its calls may be made from several threads.
class Node {
 public:
  explicit Node(const std::string& address, Access access = {}) : token_(std::move(access.token)) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetMaxSendMessageSize(-1);
    channel_ = grpc::CreateCustomChannel(address, access.credentials, arguments);
    stub_ = v1::Perception::NewStub(channel_);
  }

  // What serves there: bundle, backend, limits, encodings.
  v1::DescribeResponse describe(std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
    v1::DescribeResponse response;
    auto context = call(timeout);
    check(stub_->Describe(context.get(), {}, &response));
    return response;
  }

  // One image, one command, one answer.
  v1::SegmentResponse segment(v1::Frame frame, const std::string& command,
                              std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    v1::SegmentRequest request;
    *request.mutable_frame() = std::move(frame);
    request.set_command(command);
    v1::SegmentResponse response;
    auto context = call(timeout);
    check(stub_->Segment(context.get(), request, &response));
    return response;
  }

  // A live camera.
  Stream perceive();

 private:
  friend class Stream;

  std::unique_ptr<grpc::ClientContext> call(std::optional<std::chrono::milliseconds> timeout) const {
    auto context = std::make_unique<grpc::ClientContext>();
    if (timeout) context->set_deadline(std::chrono::system_clock::now() + *timeout);
    if (!token_.empty()) context->AddMetadata("authorization", "Bearer " + token_);
    return context;
  }

  static void check(const grpc::Status& status) {
    if (!status.ok()) throw CallError(status);
  }

  std::string token_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Perception::Stub> stub_;
};

// One live camera: one thread may send while another reads. The newest frame wins, so count on answers by their seq.
class Stream {
 public:
  explicit Stream(Node& node) : context_(node.call(std::nullopt)), call_(node.stub_->Perceive(context_.get())) {}
  Stream(Stream&&) = default;
  ~Stream() {
    if (context_) context_->TryCancel();
  }

  // Adds a target, or gives one that is there another command.
  void add_target(const std::string& target_id, const std::string& command) {
    v1::PerceiveRequest request;
    request.mutable_add_target()->set_target_id(target_id);
    request.mutable_add_target()->set_command(command);
    write(request);
  }

  void remove_target(const std::string& target_id) {
    v1::PerceiveRequest request;
    request.mutable_remove_target()->set_target_id(target_id);
    write(request);
  }

  // Sends a frame and returns its seq.
  std::uint64_t send(v1::Frame frame) {
    frame.set_seq(++seq_);
    v1::PerceiveRequest request;
    *request.mutable_frame() = std::move(frame);
    write(request);
    return seq_;
  }

  // The next answer; none once the stream has ended well. Throws CallError where it ended otherwise.
  std::optional<v1::PerceiveResponse> next() {
    v1::PerceiveResponse response;
    if (call_->Read(&response)) return response;
    Node::check(call_->Finish());
    return std::nullopt;
  }

  // Sends no more; what was received is still answered.
  void close() { call_->WritesDone(); }

 private:
  void write(const v1::PerceiveRequest& request) {
    // A stream that has ended says why when it is read.
    if (!call_->Write(request)) throw std::runtime_error("send request: the stream has ended");
  }

  std::uint64_t seq_ = 0;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::PerceiveRequest, v1::PerceiveResponse>> call_;
};

inline Stream Node::perceive() { return Stream(*this); }

}  // namespace sam4mllm
