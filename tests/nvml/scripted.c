/* An NVML whose devices are folders: $SCRIPTED_NVML_DIR/gpu0, gpu1 … read anew at every call.
 *
 *   gpuN/total, name, uuid   a line each; only `total` must be there
 *   gpuN/held/PID[-WORD…]    bytes held by that process, for as long as it lives; those of
 *                            PID-graphics… are of a process on the graphics list
 *   gpuN/held/stuck-*        bytes that are used and that no process holds
 *   gpuN/held/foreign-*      bytes held by a process whose pid is not of our namespace
 *   gpuN/util, temperature,  numbers: of percent, degrees and milliwatts; without the file, the
 *        power_mw            GPU does not say
 *   gpuN/untold              if there: nobody is told how much a process holds
 *   gpuN/unlisted            if there: processes cannot be asked for
 *   gpuN/error, error        a number that calls for this GPU, or all calls, fail with
 *
 * A name that begins with a dot is a file that is still being written.
 */

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
enum { PATH_SIZE = 4096, MOST_HOLDERS = 256 };
enum { FOREIGN_PID = (1 << 22) + 2 }; /* above the highest that Linux gives */

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
} process_t;
typedef struct { process_t info; int is_graphics, is_compute; } holder_t;

static void path_of(char *path, int gpu, const char *name) {
  const char *root = getenv("SCRIPTED_NVML_DIR");
  if (!root) root = "/nonexistent";
  if (gpu < 0) snprintf(path, PATH_SIZE, "%s/%s", root, name);
  else snprintf(path, PATH_SIZE, "%s/gpu%d/%s", root, gpu, name);
}

static int exists(int gpu, const char *name) {
  char path[PATH_SIZE];
  path_of(path, gpu, name);
  return access(path, F_OK) == 0;
}

/* The first line of a file; 0: there is none. */
static int read_line(int gpu, const char *name, char *line, unsigned size) {
  char path[PATH_SIZE];
  path_of(path, gpu, name);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  if (!fgets(line, (int)size, file)) line[0] = 0;
  fclose(file);
  line[strcspn(line, "\n")] = 0;
  return 1;
}

static unsigned long long read_number(int gpu, const char *name) {
  char line[64];
  return read_line(gpu, name, line, sizeof line) ? strtoull(line, NULL, 10) : 0;
}

static int failure(int gpu) {
  int all = (int)read_number(-1, "error");
  return all || gpu < 0 ? all : (int)read_number(gpu, "error");
}

/* A process that only waits to be reaped holds nothing any more. */
static int lives(unsigned pid) {
  char path[64], line[1024];
  snprintf(path, sizeof path, "/proc/%u/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t length = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[length] = 0;
  char *end = strrchr(line, ')');
  return end && end[1] && end[2] != 'Z' && end[2] != 'X';
}

static holder_t *holder_of(holder_t *holders, unsigned *count, unsigned pid) {
  for (unsigned i = 0; i < *count; i++)
    if (holders[i].info.pid == pid) return &holders[i];
  if (*count == MOST_HOLDERS) abort();
  holder_t *made = &holders[(*count)++];
  memset(made, 0, sizeof *made);
  made->info.pid = pid;
  return made;
}

/* All bytes in use; the processes among them, one entry each. */
static unsigned long long look(int gpu, holder_t *holders, unsigned *count) {
  char path[PATH_SIZE], name[300];
  unsigned long long used = 0;
  struct dirent *entry;
  *count = 0;
  path_of(path, gpu, "held");
  DIR *folder = opendir(path);
  if (!folder) return 0;
  while ((entry = readdir(folder))) {
    if (entry->d_name[0] == '.') continue;
    snprintf(name, sizeof name, "held/%s", entry->d_name);
    unsigned long long bytes = read_number(gpu, name);
    if (isdigit((unsigned char)entry->d_name[0])) {
      char *rest;
      unsigned pid = (unsigned)strtoul(entry->d_name, &rest, 10);
      if (!lives(pid)) continue;
      holder_t *holder = holder_of(holders, count, pid);
      holder->info.used += bytes;
      if (strncmp(rest, "-graphics", 9) == 0) holder->is_graphics = 1;
      else holder->is_compute = 1;
    } else if (strncmp(entry->d_name, "foreign-", 8) == 0) {
      holder_t *holder = holder_of(holders, count, FOREIGN_PID);
      holder->info.used += bytes;
      holder->is_compute = 1;
    } else if (strncmp(entry->d_name, "stuck-", 6) != 0) continue;
    used += bytes;
  }
  closedir(folder);
  return used;
}

static int list(int gpu, unsigned *count, process_t *infos, int wants_graphics) {
  holder_t holders[MOST_HOLDERS];
  unsigned found, told = 0, room = *count;
  int error = failure(gpu);
  if (error) return error;
  if (exists(gpu, "unlisted")) return NOT_SUPPORTED;
  int is_untold = exists(gpu, "untold");
  look(gpu, holders, &found);
  for (unsigned i = 0; i < found; i++) {
    if (!(wants_graphics ? holders[i].is_graphics : holders[i].is_compute)) continue;
    if (infos && told < room) {
      infos[told] = holders[i].info;
      if (is_untold) infos[told].used = ~0ULL;
    }
    told++;
  }
  *count = told;
  return told > room ? INSUFFICIENT_SIZE : SUCCESS;
}

/* A device's handle is its index, and one, as a pointer. */
static int gpu_of(void *handle) { return (int)(size_t)handle - 1; }

static int text(int gpu, const char *name, const char *otherwise, char *to, unsigned size) {
  int error = failure(gpu);
  if (error) return error;
  if (!read_line(gpu, name, to, size)) snprintf(to, size, "%s %d", otherwise, gpu);
  return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return failure(-1); }
int nvmlInit_v2(void) { return failure(-1); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "a scripted error"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
  int error = failure(-1);
  for (*count = 0; exists((int)*count, "total"); (*count)++) {}
  return error;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  int error = failure((int)index);
  if (error) return error;
  *handle = (void *)(size_t)(index + 1);
  return exists((int)index, "total") ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned size) {
  return text(gpu_of(handle), "name", "Scripted GPU", name, size);
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size) {
  return text(gpu_of(handle), "uuid", "GPU-scripted", uuid, size);
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  holder_t holders[MOST_HOLDERS];
  unsigned count;
  int gpu = gpu_of(handle), error = failure(gpu);
  if (error) return error;
  memory->total = read_number(gpu, "total");
  memory->used = look(gpu, holders, &count);
  if (memory->used > memory->total) memory->used = memory->total;
  memory->free = memory->total - memory->used;
  return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *infos) {
  return list(gpu_of(handle), count, infos, 0);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process_t *infos) {
  return list(gpu_of(handle), count, infos, 1);
}

static int number(int gpu, const char *name, unsigned *to) {
  int error = failure(gpu);
  if (error) return error;
  if (!exists(gpu, name)) return NOT_SUPPORTED;
  *to = (unsigned)read_number(gpu, name);
  return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
  rates->memory = 0;
  return number(gpu_of(handle), "util", &rates->gpu);
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *degrees) {
  (void)sensor;
  return number(gpu_of(handle), "temperature", degrees);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
  return number(gpu_of(handle), "power_mw", milliwatts);
}
