// llama.cpp as a program without Python, for tools/budget: what a memory limit leaves must be its own.
//
//     llamacpp_budget MODEL.gguf THREADS TOKENS PROMPT
//
// Loads the model as llama.cpp does by default (mapped into memory), computes the prompt, and generates TOKENS tokens greedily,
// past any end. Prints JSON. Built against the library that PyPI's llama-cpp-python carries.
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void quiet(enum ggml_log_level level, const char *text, void *data) { (void)level, (void)text, (void)data; }

int main(int count, char **arguments) {
  if (count != 5)
    return 64;
  const int threads = atoi(arguments[2]), tokens = atoi(arguments[3]);
  llama_log_set(quiet, NULL);
  llama_backend_init();
  struct llama_model_params model_options = llama_model_default_params();
  struct llama_model *model = llama_model_load_from_file(arguments[1], model_options);
  if (!model)
    return 65;
  struct llama_context_params options = llama_context_default_params();
  options.n_ctx = 256;
  options.n_threads = options.n_threads_batch = threads;
  struct llama_context *context = llama_init_from_model(model, options);
  if (!context)
    return 69;
  const struct llama_vocab *vocabulary = llama_model_get_vocab(model);
  llama_token prompt[256];
  const int length =
      llama_tokenize(vocabulary, arguments[4], (int)strlen(arguments[4]), prompt, 256, true, true);
  if (length <= 0)
    return 64;
  struct llama_sampler *greedy = llama_sampler_init_greedy();
  const double start = now();
  if (llama_decode(context, llama_batch_get_one(prompt, length)))
    return 70;
  llama_token token = llama_sampler_sample(greedy, context, -1);
  const double first = now();
  for (int index = 1; index < tokens; index++) {
    if (llama_decode(context, llama_batch_get_one(&token, 1)))
      return 70;
    token = llama_sampler_sample(greedy, context, -1);
  }
  const double end = now();
  printf("{\"prefill\": %f, \"decode\": %f}\n", length / (first - start), (tokens - 1) / (end - first));
  return 0;
}
