// Lets the progress callback of stable-diffusion.cpp 0.4.7 stop the generation under way, and
// turns its assertions into errors. The engine has no way to be told of a stop, and would end the
// process; but it is C++, and unwinds when its callbacks throw.
// Compiled by stop.py; needs no header of the engine and nothing to link with.
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace {
struct Stop {};
using Progress = bool (*)(int step, int steps, float step_s);
Progress wants_stop = nullptr;
thread_local bool guarded = false;
}  // namespace

extern "C" {

enum Outcome { DONE, STOPPED, FAILED };

void stop_when(Progress asked) { wants_stop = asked; }

// Give this one to sd_set_progress_callback.
void progress(int step, int steps, float step_s, void*) {
    if (wants_stop && wants_stop(step, steps, step_s) && guarded) throw Stop{};
}

// Give this one to ggml_set_abort_callback. A graph that cannot be built is no reason to die. After
// any other abort, such as a device's, nothing that the engine holds can be trusted: returning
// ends the process.
void aborted(const char* message) {
    std::fprintf(stderr, "error: %s\n", message);
    if (guarded && std::strstr(message, "GGML_ASSERT")) throw std::runtime_error(message);
}

// call(function, a, b) = function(a, b), with every exception turned into an Outcome.
void* call(void* (*function)(void*, void*), void* a, void* b, int* outcome, char* what, int room) {
    guarded = true;
    void* result = nullptr;
    *outcome = FAILED;
    try {
        result = function(a, b);
        *outcome = DONE;
    } catch (const Stop&) {
        *outcome = STOPPED;
    } catch (const std::exception& error) {
        std::strncpy(what, error.what(), room - 1);
    } catch (...) {
        std::strncpy(what, "an unknown C++ exception", room - 1);
    }
    guarded = false;
    return result;
}
}
