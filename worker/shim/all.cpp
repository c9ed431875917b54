// All of the shim as one translation unit: libtorch's headers, which take 20 s, are read once.
#include "fake_quantize.cpp"
#include "graph.cpp"
#include "learned_scale.cpp"
#include "shim.cpp"
