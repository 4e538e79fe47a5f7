// Lets the progress callback of stable-diffusion.cpp 0.4.7 stop the generation under way, and
// turns its assertions into errors. The engine has no way to be told of a stop, and would end the
// process; but it is C++, and unwinds when its callbacks throw.
// Compiled by stop.py; needs no header of the engine and nothing to link with.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <unwind.h>

namespace {
struct Stop {};
using Progress = bool (*)(int step, int steps, float step_s);
Progress wants_stop = nullptr;
void* computes = nullptr;
thread_local bool guarded = false;

_Unwind_Reason_Code look_at(_Unwind_Context* frame, void* found) {
    if (_Unwind_GetRegionStart(frame) != reinterpret_cast<std::uintptr_t>(computes)) {
        return _URC_NO_REASON;
    }
    *static_cast<bool*>(found) = true;
    return _URC_END_OF_STACK;
}

bool is_computing() {
    bool found = false;
    _Unwind_Backtrace(look_at, &found);
    return found;
}
}  // namespace

extern "C" {

enum Outcome { DONE, STOPPED, FAILED };

void stop_when(Progress asked) { wants_stop = asked; }

// Give this one to sd_set_progress_callback.
void progress(int step, int steps, float step_s, void*) {
    if (wants_stop && wants_stop(step, steps, step_s) && guarded) throw Stop{};
}

// Tell which function computes graphs.
void computed_by(void* function) { computes = function; }

// Give this one to ggml_set_abort_callback. A graph that cannot be built is no reason to die: only
// this thread knows of it. One that is being computed has other threads and devices at work, who
// would wait for this thread for ever, and after an error of a device nothing that the engine holds
// can be trusted: returning ends the process.
void aborted(const char* message) {
    std::fprintf(stderr, "error: %s\n", message);
    const bool is_assertion = std::strstr(message, "GGML_ASSERT") != nullptr;
    if (guarded && is_assertion && !is_computing()) throw std::runtime_error(message);
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
