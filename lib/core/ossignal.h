/* ossignal: the names of the signals of the operating system, as kill(1) has them.  Any thread. */
#ifndef CORE_OSSIGNAL_H
#define CORE_OSSIGNAL_H

/* The number of a signal that is given as "HUP", "SIGHUP" (in either case) or "1"; 0 when there is no such
 * signal.  Real-time signals have numbers only. */
int ossignal_number(const char *text);

/* The name without SIG, or NULL when the signal has none.  Static. */
const char *ossignal_name(int number);

#endif
