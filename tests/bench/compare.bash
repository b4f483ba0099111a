# Sourced by the benchmarks: prints the table that compares both sides.
# shellcheck shell=bash

# Reads lines of name, tab, value; prints a line for each name, in the order of the first run, with the median of its
# values.
medians() {
  awk -F '\t' '
    !($1 in n) { order[++names] = $1 }
    { value[$1, ++n[$1]] = $2 }
    function median(name,   i, j, v, sorted) {
      for (i = 1; i <= n[name]; i++) {
        v = value[name, i]
        for (j = i - 1; j > 0 && sorted[j] + 0 > v + 0; j--) sorted[j + 1] = sorted[j]
        sorted[j + 1] = v
      }
      return n[name] % 2 ? sorted[(n[name] + 1) / 2] : (sorted[n[name] / 2] + sorted[n[name] / 2 + 1]) / 2
    }
    END { for (i = 1; i <= names; i++) printf "%s\t%.1f\n", order[i], median(order[i]) }' "$1"
}
# compare OURS BEAM RUNS: prints a row for each name, with the medians of both files and their ratio.
compare() {
  local runs=$3
  medians "$1" >"$1.median"
  medians "$2" >"$2.median"
  printf '%-28s %10s %10s %7s\n' "ns each, median of $runs" ours BEAM ratio
  awk -F '\t' '
    FILENAME == ARGV[1] { beam[$1] = $2; next } # it may be empty
    $1 in beam { printf "%-28s %10.1f %10.1f %7.2f\n", $1, $2, beam[$1], $2 / beam[$1]; next }
    { printf "%-28s %10.1f %10s %7s\n", $1, $2, "-", "-" }' "$2.median" "$1.median"
}

# worked PID…: hundredths of a second that these processes, what they have waited for, and the children of this shell
# have worked.
worked() {
  local pid files=()
  for pid; do files+=("/proc/$pid/stat"); done
  awk -v self="$$" '{ n += $16 + $17 } $1 != self { n += $14 + $15 } END { print n }' "${files[@]}" "/proc/$$/stat"
}
