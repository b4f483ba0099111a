/* no_network: a mesh without peers: every offer to another node fails at once. */
#ifndef TESTS_UNIT_NO_NETWORK_H
#define TESTS_UNIT_NO_NETWORK_H

#include "agent/mesh/mesh.h"

/* Makes the mesh with this transport, a long heartbeat and no events; aborts when that fails. */
struct mesh *no_network_mesh(struct mesh_config config);

#endif
