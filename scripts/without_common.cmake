# Included by llama.cpp's project() when its Python package is built: leaves out libllama-common,
# four tenths of the compile time, which the package never loads. Its own CMakeLists forces the
# option on, so setting it on the command line has no effect.
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)
