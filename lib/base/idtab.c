/* Invariant: a page in the map has at least one value; `used` is the number of its values, and len the number
 * in all pages. */
#include "base/idtab.h"

#include "base/err.h"

#include <stdlib.h>

struct idtab_page {
  void *values[IDTAB_PAGE];
  uint32_t used;
};

static struct idtab_page *page_of(const struct idtab *t, uint64_t id) {
  return map_get_id(&t->pages, id / IDTAB_PAGE);
}

void idtab_finish(struct idtab *t) {
  void *page;
  for (size_t at = 0; map_next(&t->pages, &at, NULL, NULL, &page);) free(page);
  map_finish(&t->pages);
  t->len = 0;
}

void *idtab_get(const struct idtab *t, uint64_t id) {
  const struct idtab_page *page = page_of(t, id);
  return page ? page->values[id % IDTAB_PAGE] : NULL;
}

static struct idtab_page *add_page(struct idtab *t, uint64_t id) {
  struct idtab_page *page = calloc(1, sizeof *page);
  if (page && map_put_id(&t->pages, id / IDTAB_PAGE, page)) {
    free(page);
    page = NULL;
  }
  return page;
}

int idtab_put(struct idtab *t, uint64_t id, void *value) {
  struct idtab_page *page = page_of(t, id);
  if (!page && !(page = add_page(t, id))) return ERR_NOMEM;
  page->values[id % IDTAB_PAGE] = value;
  page->used++;
  t->len++;
  return 0;
}

void *idtab_remove(struct idtab *t, uint64_t id) {
  struct idtab_page *page = page_of(t, id);
  void *value = page ? page->values[id % IDTAB_PAGE] : NULL;
  if (!value) return NULL;
  page->values[id % IDTAB_PAGE] = NULL;
  t->len--;
  if (--page->used == 0) free(map_remove_id(&t->pages, id / IDTAB_PAGE));
  return value;
}

/* *at: the place in the map of the next page, times IDTAB_PAGE, and the place in the page before it. */
void *idtab_next(const struct idtab *t, size_t *at) {
  void *page;
  for (size_t slot = *at / IDTAB_PAGE, next = slot; map_next(&t->pages, &next, NULL, NULL, &page);
       slot = next) {
    size_t i = slot == *at / IDTAB_PAGE ? *at % IDTAB_PAGE : 0;
    for (; i < IDTAB_PAGE; i++) {
      void *value = ((struct idtab_page *)page)->values[i];
      if (!value) continue;
      *at = i + 1 < IDTAB_PAGE ? slot * IDTAB_PAGE + i + 1 : next * IDTAB_PAGE;
      return value;
    }
  }
  return NULL;
}
