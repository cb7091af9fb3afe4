#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>

// el_set and history take what their second argument says, which Swift cannot call.

static inline int edit_set_prompt(EditLine *line, char *(*prompt)(EditLine *)) {
  return el_set(line, EL_PROMPT, prompt);
}

static inline int edit_set_input(EditLine *line, int (*read)(EditLine *, wchar_t *)) {
  return el_set(line, EL_GETCFN, read);
}

static inline int edit_set_editor(EditLine *line, const char *name) { return el_set(line, EL_EDITOR, name); }

static inline int edit_set_raw(EditLine *line, int raw) { return el_set(line, EL_PREP_TERM, raw); }

static inline int edit_refresh(EditLine *line) { return el_set(line, EL_REFRESH); }

static inline int edit_add(EditLine *line, const char *name, unsigned char (*function)(EditLine *, int)) {
  return el_set(line, EL_ADDFN, name, name, function);
}

static inline int edit_bind(EditLine *line, const char *keys, const char *name) {
  return el_set(line, EL_BIND, keys, name, NULL);
}

static inline History *edit_remember(EditLine *line, int size) {
  History *past = history_init();
  HistEvent event;
  if (past && history(past, &event, H_SETSIZE, size) != -1 && history(past, &event, H_SETUNIQUE, 1) != -1)
    el_set(line, EL_HIST, history, past);
  return past;
}

static inline void edit_enter(History *past, const char *line) {
  HistEvent event;
  history(past, &event, H_ENTER, line);
}
