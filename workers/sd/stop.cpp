// Lets the progress callback of stable-diffusion.cpp 0.4.7 stop the generation under way.
// The engine has no way to be told; but it is C++, and unwinds when its callback throws.
// Compiled by stop.py; needs no header of the engine and nothing to link with.
#include <cstring>
#include <exception>

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
