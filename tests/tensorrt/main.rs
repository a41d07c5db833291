//! The TensorRT backend as far as a machine goes: without the libraries the refusals, with them parsing and building
//! for three generations of GPUs, with a GPU loading too. What cannot run is counted as skipped, never as passed.
//!
//! `tests/tensorrt/run` gets headers and libraries and calls this.

#![allow(clippy::print_stdout)]

mod build;
mod families;
mod harness;
mod load;
mod refuse;

use std::process::ExitCode;

use harness::{Case, run};

fn main() -> ExitCode {
    let cases = [
        Case::always("a_missing_library_is_named", refuse::a_missing_library_is_named),
        Case::always("another_version_is_refused_with_both_numbers", refuse::another_version_is_refused),
        Case::with_library("a_machine_without_a_gpu_is_told_what_to_do", refuse::a_machine_without_a_gpu),
        Case::with_library("a_capability_that_is_none_is_refused", refuse::a_capability_that_is_none),
        Case::with_library("a_broken_graph_names_its_node", refuse::a_broken_graph_names_its_node),
        Case::with_library("a_dimension_without_bounds_is_named", refuse::a_dimension_without_bounds),
        Case::with_library("a_plan_of_another_version_is_built_again", refuse::a_plan_of_another_version),
        Case::with_library("a_build_is_followed_and_can_be_stopped", build::a_build_is_followed_and_can_be_stopped),
        Case::with_library("two_builders_build_once", build::two_builders_build_once),
        Case::with_library("weights_to_be_streamed_make_another_plan", build::weights_to_be_streamed_make_another_plan),
        Case::with_library("the_binary_builds_then_finds", build::the_binary_builds_then_finds),
        Case::with_library("every_graph_is_parsed_in_every_form", build::every_graph_is_parsed_in_every_form),
        Case::with_library("every_graph_is_built_for_three_gpus", build::every_graph_is_built_for_three_gpus),
        Case::with_library("every_family_is_built_at_both_levels", families::every_family_is_built_at_both_levels),
        Case::with_gpu("a_stripped_plan_has_no_weights", load::a_stripped_plan_has_no_weights),
        Case::with_gpu("a_plan_is_loaded_and_described", load::a_plan_is_loaded_and_described),
        Case::with_gpu("shapes_out_of_reach_are_refused", load::shapes_out_of_reach_are_refused),
    ];
    run(&cases)
}
