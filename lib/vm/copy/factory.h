/* factory: instances of functions by their bytecode; in each isolate one factory (bytecode.h) a distinct
 * body. */
#ifndef VM_COPY_FACTORY_H
#define VM_COPY_FACTORY_H

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

struct isolate;

struct factory {
  struct factory *next; /* of the same hash */
  int ref;              /* of the factory function in the registry */
  uint32_t upvalues;
  size_t len;
  uint8_t body[];
};

/* The factory of a body; NULL and *problem when it cannot be. Raises when memory runs out. */
struct factory *factory_find(lua_State *L, struct isolate *iso, const void *body, size_t len,
                             const char **problem);

/* The factory of the Lua function at index. */
struct factory *factory_of(lua_State *L, struct isolate *iso, int index, const char **problem);

/* Pushes a fresh instance. */
void factory_push(lua_State *L, const struct factory *f);

/* Finds out whether factory_of may tell functions apart by their prototype's address. */
void factory_open(lua_State *L, struct isolate *iso);
void factory_drop_all(struct isolate *iso);

#endif
