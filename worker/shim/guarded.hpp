// No exception crosses the C interface: its text does, for the caller to free with `qpipe_free`; null where there was none.

#pragma once

#include <cstring>
#include <exception>

template <typename F> char *guarded(F &&run) {
  try {
    run();
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an unknown exception of libtorch");
  }
}
