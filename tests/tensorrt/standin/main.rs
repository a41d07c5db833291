//! TensorRT's runtime half and the CUDA driver, played by a library of the test's own: what cannot be had without a GPU
//! is *what* is computed; in which order, on which memory, for how long and with which errors can.
//!
//! The stand-in is compiled against the headers that the shim was compiled against, and takes the names of NVIDIA's
//! libraries. Every case runs in a process of its own, so that a broken rule ends that case alone; see `standin.h`.

#![allow(clippy::print_stdout)]

mod caches;
mod cases;
mod compile;
mod faults;
mod graphs;
mod held;
mod mapped;
mod node;
mod plans;

use std::panic::catch_unwind;
use std::path::Path;
use std::process::{Command, ExitCode};

struct Case {
    name: &'static str,
    run: fn(),
    /// What the stand-in must say; nothing where the case must end well.
    breach: Option<&'static str>,
}

const fn case(name: &'static str, run: fn()) -> Case {
    Case { name, run, breach: None }
}

const CASES: [Case; 47] = [
    case("an_engine_answers_in_every_size", cases::an_engine_answers_in_every_size),
    case("elements_of_every_type_arrive", cases::elements_of_every_type_arrive),
    case("an_output_may_find_its_own_size", cases::an_output_may_find_its_own_size),
    case("the_closest_profile_is_taken", cases::the_closest_profile_is_taken),
    case("bad_inputs_are_refused_by_name", cases::bad_inputs_are_refused_by_name),
    case("an_engine_moves_between_threads", cases::an_engine_moves_between_threads),
    case("what_is_made_keeps_its_maker", cases::what_is_made_keeps_its_maker),
    case("an_engine_tells_what_it_is", cases::an_engine_tells_what_it_is),
    case("the_gpu_tells_what_it_is", cases::the_gpu_tells_what_it_is),
    case("a_failure_to_load_is_told", faults::a_failure_to_load_is_told),
    case("a_failure_to_run_is_told_and_outlived", faults::a_failure_to_run_is_told_and_outlived),
    case("too_little_memory_is_told", faults::too_little_memory_is_told),
    case("a_lost_device_is_told", faults::a_lost_device_is_told),
    case("what_is_no_plan_is_refused", faults::what_is_no_plan_is_refused),
    case("a_type_that_no_graph_has_is_refused", faults::a_type_that_no_graph_has_is_refused),
    case("without_a_gpu_the_driver_speaks", faults::without_a_gpu_the_driver_speaks),
    case("a_cache_in_place_comes_and_goes_as_long_as_it_is", caches::a_cache_in_place_comes_and_goes_as_long_as_it_is),
    case("a_cache_stays_on_the_device", caches::a_cache_stays_on_the_device),
    case("a_branch_of_a_cache_is_kept", caches::a_branch_of_a_cache_is_kept),
    case("a_failure_leaves_caches_as_they_were", caches::a_failure_leaves_caches_as_they_were),
    case("a_cache_of_another_kind_is_refused", caches::a_cache_of_another_kind_is_refused),
    case("what_comes_again_is_captured", graphs::what_comes_again_is_captured),
    case("a_graph_goes_with_its_memory", graphs::a_graph_goes_with_its_memory),
    case("what_cannot_be_captured_is_enqueued", graphs::what_cannot_be_captured_is_enqueued),
    case("graphs_can_be_switched_off", graphs::graphs_can_be_switched_off),
    case("a_failure_to_launch_is_told", graphs::a_failure_to_launch_is_told),
    case("contexts_need_not_share_kernels", graphs::contexts_need_not_share_kernels),
    case("a_failure_before_the_capture_is_outlived", graphs::a_failure_before_the_capture_is_outlived),
    case("graphs_move_between_threads", graphs::graphs_move_between_threads),
    case("a_conversation_goes_on_by_one_graph", graphs::a_conversation_goes_on_by_one_graph),
    case("outputs_stay_on_the_device", held::outputs_stay_on_the_device),
    case("what_is_handed_over_goes_by_graphs", held::what_is_handed_over_goes_by_graphs),
    case("what_does_not_fit_is_fetched", held::what_does_not_fit_is_fetched),
    case("a_failure_to_hand_over_is_told", held::a_failure_to_hand_over_is_told),
    case("what_is_held_outlives_its_engine", held::what_is_held_outlives_its_engine),
    case("a_board_copies_nothing", mapped::a_board_copies_nothing),
    case("a_board_does_what_others_do", mapped::a_board_does_what_others_do),
    case("buffers_are_what_is_wanted", mapped::buffers_are_what_is_wanted),
    case("a_failure_to_map_is_told", mapped::a_failure_to_map_is_told),
    case("the_gpu_is_held_against_the_cpu", node::the_gpu_is_held_against_the_cpu),
    case("graphs_are_compared_by_a_script", node::graphs_are_compared_by_a_script),
    case("a_node_on_the_gpu_tests_itself", node::a_node_on_the_gpu_tests_itself),
    case("a_decoder_is_timed", node::a_decoder_is_timed),
    case("a_plan_that_is_missing_is_built", node::a_plan_that_is_missing_is_built),
    case("a_probe_tells_what_is_missing", node::a_probe_tells_what_is_missing),
    case("a_plan_is_inspected_with_and_without_its_gpu", node::a_plan_is_inspected_with_and_without_its_gpu),
    Case {
        name: "the_stand_in_finds_leaks",
        run: faults::an_engine_is_forgotten,
        breach: Some("of kind `context` left at the end"),
    },
];

/// Without arguments runs every case, with some those whose names hold one; `--one NAME` is the process of one.
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = args.as_slice()
        && flag == "--one"
    {
        let case = CASES.iter().find(|case| case.name == name).expect("there is such a case");
        return if catch_unwind(case.run).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |case: &&Case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter.as_str()));
    let folder = tempfile::tempdir().expect("a folder");
    compile::standin(folder.path());
    let (mut passed, mut failed) = (0, 0);
    for case in CASES.iter().filter(wanted) {
        let good = runs(case, folder.path());
        *(if good { &mut passed } else { &mut failed }) += 1;
        println!("test {} ... {}", case.name, if good { "ok" } else { "FAILED" });
    }
    println!("\nstand-in: {passed} passed, {failed} failed\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn runs(case: &Case, folder: &Path) -> bool {
    // A case starts without a call that fails, on a card of its own.
    for file in ["fail", "device"] {
        let _ = std::fs::remove_file(folder.join(file));
    }
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--one", case.name]).env("STANDIN", folder).env("TENSORRT_LIB_DIR", folder);
    // Before the system's folders, which may hold a real driver.
    command.env("LD_LIBRARY_PATH", folder);
    let output = command.output().expect("this program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let good = match case.breach {
        None => output.status.success(),
        Some(breach) => !output.status.success() && said.contains(breach),
    };
    if !good {
        println!("  {}\n{}{said}", output.status, String::from_utf8_lossy(&output.stdout));
    }
    good
}
