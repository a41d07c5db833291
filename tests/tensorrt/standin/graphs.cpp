// The driver's CUDA graphs: work that is captured from a stream is not done, and done again with every launch.
#include "driver.h"

using namespace standin::driver;

namespace standin::driver {

thread_local int captures = 0;

}  // namespace standin::driver

namespace standin {

bool capturing(void* stream) { return living(stream)->capture != nullptr; }

}  // namespace standin

#pragma GCC visibility push(default)
extern "C" {

int cuStreamBeginCapture_v2(void* stream, int mode) {
    Guard guard(standin::lock());
    standin::check_current("cuStreamBeginCapture", stream);
    auto* const one = living(stream);
    if (one->capture) standin::breach("a stream is captured twice at a time");
    if (mode != 1) standin::breach("a capture that forbids other threads their calls, or allows this one all of them");
    if (standin::fails("cuStreamBeginCapture")) return kInvalidValue;
    one->capture = std::make_unique<Graph>(), ++captures;
    return kSuccess;
}
int cuStreamEndCapture(void* stream, void** graph) {
    Guard guard(standin::lock());
    auto* const one = living(stream);
    if (!one->capture) standin::breach("the end of a capture that did not begin");
    std::unique_ptr<Graph> captured = std::move(one->capture);
    *graph = nullptr, --captures;
    if (standin::fails("cuStreamEndCapture")) return kCaptureInvalidated;
    *graph = *state().graphs.insert(captured.release()).first;
    return kSuccess;
}
int cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
    Guard guard(standin::lock());
    auto* const from = static_cast<Graph*>(graph);
    if (state().graphs.count(from) == 0) standin::breach("use of a graph that is not there");
    if (standin::fails("cuGraphInstantiate")) return kOutOfMemory;
    auto made = std::make_unique<Exec>();
    made->work = from->work;
    *exec = *state().execs.insert(made.release()).first;
    return kSuccess;
}
int cuGraphLaunch(void* exec, void* stream) {
    Guard guard(standin::lock());
    standin::check_current("cuGraphLaunch", stream);
    auto* const from = static_cast<Exec*>(exec);
    if (state().execs.count(from) == 0) standin::breach("launch of a graph that is not there");
    if (standin::fails("cuGraphLaunch")) return kLaunchFailed;
    for (auto const& work : from->work) {
        for (auto const* used : work.memory)
            if (used != nullptr && find(used, 0) == nullptr) standin::breach("launch of a graph whose memory is gone");
        standin::enqueue(stream, work.memory, work.run);
    }
    return kSuccess;
}
int cuGraphExecDestroy(void* exec) {
    Guard guard(standin::lock());
    auto* const one = static_cast<Exec*>(exec);
    if (state().execs.erase(one) == 0) standin::breach("the end of a graph that is not there");
    return delete one, kSuccess;
}
int cuGraphDestroy(void* graph) {
    Guard guard(standin::lock());
    auto* const one = static_cast<Graph*>(graph);
    if (state().graphs.erase(one) == 0) standin::breach("the end of a graph that is not there");
    return delete one, kSuccess;
}

}  // extern "C"
