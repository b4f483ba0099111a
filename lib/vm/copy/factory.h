/* factory: makes fresh instances of a function, which is found by its bytecode.  An isolate keeps one factory
 * (bytecode.h) for each distinct body, so that it loads the body once.
 *
 * Called by the thread that runs the isolate.  A pointer to a factory is valid until the next call of
 * factory_find or factory_of, which may drop all factories. */
#ifndef VM_COPY_FACTORY_H
#define VM_COPY_FACTORY_H

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

struct isolate;

struct factory {
  struct factory *next; /* of the same hash */
  int ref;              /* of the factory function in the registry */
  struct label *label;  /* where the body begins (process/facts.h); NULL until factory_label was called */
  uint32_t upvalues;
  size_t len;
  uint8_t body[];
};

/* The factory of a body, which is made if there is none; NULL and *problem when the body is damaged, or when
 * memory runs out.  Raises when memory of Lua runs out. */
struct factory *factory_find(lua_State *L, struct isolate *iso, const void *body, size_t len,
                             const char **problem);

/* The factory of the Lua function at index; fails as factory_find does. */
struct factory *factory_of(lua_State *L, struct isolate *iso, int index, const char **problem);

/* The label of the function at index, which is an instance; valid as long as the factory. */
struct label *factory_label(lua_State *L, struct isolate *iso, struct factory *f, int index);

/* Pushes a fresh instance. */
void factory_push(lua_State *L, const struct factory *f);

/* When an isolate opens: finds out whether factory_of may tell functions apart by the address of their
 * prototype. When it closes: drops all factories. */
void factory_open(lua_State *L, struct isolate *iso);
void factory_drop_all(struct isolate *iso);

#endif
