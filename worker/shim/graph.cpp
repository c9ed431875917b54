// CUDA graphs of libtorch, behind a C interface like that of shim.cpp. The program is linked without libtorch_cuda, which it opens at run time
// where there is one: its class at::cuda::CUDAGraph is found by the names of its members, streams by ATen's table of devices.

#include "guarded.hpp"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <dlfcn.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

// PyTorch 2.4 and later. The class is about 200 bytes long there; its own functions build it and take it down.
constexpr size_t ROOM = 4096;
using Pool = std::pair<unsigned long long, unsigned long long>;
// cudaStreamCaptureModeThreadLocal: what other threads do meanwhile is theirs.
constexpr int THREAD_LOCAL = 1;

template <typename F> F member(const char *name) {
  void *found = dlsym(RTLD_DEFAULT, name);
  if (!found) throw std::runtime_error(std::string("this libtorch has no CUDA graphs as qpipe knows them (") + name + ")");
  return reinterpret_cast<F>(found);
}

struct Graph {
  alignas(64) unsigned char room[ROOM] = {};
  bool built = false;
  c10::Stream stream;
  void (*replay)(void *);
  void (*destroy)(void *);

  explicit Graph(c10::Stream side)
      : stream(side), replay(member<void (*)(void *)>("_ZN2at4cuda9CUDAGraph6replayEv")),
        destroy(member<void (*)(void *)>("_ZN2at4cuda9CUDAGraphD1Ev")) {
    member<void (*)(void *, bool)>("_ZN2at4cuda9CUDAGraphC1Eb")(room, false);
    built = true;
  }
  ~Graph() {
    if (built) destroy(room);
  }
};

// While it lives, what would wait for the GPU is refused with an error, as after torch.cuda.set_sync_debug_mode("error"): a recording
// that meets such a call is beyond repair. libtorch keeps the mode as the one member of `c10::cuda::WarningState`.
struct NoWaits {
  int *mode = static_cast<int *>(dlsym(RTLD_DEFAULT, "_ZZN3c104cuda13warning_stateEvE14warning_state_"));
  NoWaits() {
    if (mode) *mode = 2;
  }
  ~NoWaits() {
    if (mode) *mode = 0;
  }
};

// A device that is the current one while this lives.
struct Current {
  const c10::impl::DeviceGuardImplInterface *of;
  c10::Device before;
  Current(const c10::impl::DeviceGuardImplInterface *of, c10::Device device) : of(of), before(of->exchangeDevice(device)) {}
  ~Current() { of->uncheckedSetDevice(before); }
};

const c10::impl::DeviceGuardImplInterface *device() { return c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA); }

} // namespace

extern "C" {

// Runs `work` twice on a stream of its own, which allocates and chooses kernels, the second time without leave to wait for the GPU; then once
// more while the stream is recorded. `work` gives 0 if it failed.
char *qpipe_graph_record(int8_t index, int (*work)(void *), void *context, void **made) {
  return guarded([&] {
    auto *of = device();
    c10::Device here(c10::DeviceType::CUDA, index);
    // libtorch records and replays on the current device's stream, whatever device the graph's own stream is of.
    Current current(of, here);
    auto graph = std::make_unique<Graph>(of->getStreamFromGlobalPool(here, false));
    of->synchronizeStream(of->getStream(here));
    auto before = of->exchangeStream(graph->stream);
    struct Back {
      const c10::impl::DeviceGuardImplInterface *of;
      c10::Stream stream;
      ~Back() { of->exchangeStream(stream); }
    } back{of, before};
    if (!work(context)) throw std::runtime_error("the first run failed");
    {
      NoWaits meanwhile;
      if (!work(context)) throw std::runtime_error("the second run failed");
    }
    of->synchronizeStream(graph->stream);
    // The recording has memory of its own.
    c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache();
    member<void (*)(void *, Pool, int)>("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode")(
        graph->room, Pool(0, 0), THREAD_LOCAL);
    bool done = work(context) != 0;
    // A capture that is not ended leaves the device unusable.
    member<void (*)(void *)>("_ZN2at4cuda9CUDAGraph11capture_endEv")(graph->room);
    if (!done) throw std::runtime_error("the run that was recorded failed");
    of->synchronizeStream(graph->stream);
    *made = graph.release();
  });
}

// Enqueues what was recorded, on the stream of the caller.
char *qpipe_graph_replay(void *graph) {
  return guarded([&] {
    auto *it = static_cast<Graph *>(graph);
    Current current(device(), it->stream.device());
    it->replay(it->room);
  });
}

void qpipe_graph_free(void *graph) { delete static_cast<Graph *>(graph); }

// The name of a GPU: the first member of CUDA's `cudaDeviceProp`, 256 characters with a 0 among them.
char *qpipe_gpu_name(int8_t index, char *name) {
  return guarded([&] {
    std::memcpy(name, member<const void *(*)(c10::DeviceIndex)>("_ZN2at4cuda19getDevicePropertiesEa")(index), 256);
  });
}

// Waits for all that was enqueued on the device.
char *qpipe_synchronize(int8_t index) {
  return guarded([&] { device()->synchronizeDevice(index); });
}
}
