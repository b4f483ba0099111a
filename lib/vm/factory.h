/* factory: instances of functions by their bytecode, one factory (bytecode.h) a distinct body and isolate. */
#ifndef VM_FACTORY_H
#define VM_FACTORY_H

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

struct isolate;

/* Pushes a fresh instance and returns NULL, with how many upvalues it has; or pushes nothing and returns what
 * is wrong with the body. Raises when memory runs out. */
const char *factory_instance(lua_State *L, struct isolate *iso, const uint8_t *body, size_t len,
                             uint32_t *upvalues);

void factory_drop_all(struct isolate *iso);

#endif
