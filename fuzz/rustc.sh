#!/bin/sh
# The compiler for fuzzing: our own crates, and only these, count which of their branches were taken, by which libFuzzer finds
# inputs that lead somewhere new. Called by cargo, with the compiler first.
case " $* " in
*' --crate-name matrix_agent '* | *' --crate-name sandboxd '*) ;;
*)
    # A target itself, told by where it lies.
    case " $* " in *' fuzz_targets/'*) ;; *) exec "$@" ;; esac
    ;;
esac
exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Copt-level=1
