# @NAME@ in Vivado: a project, synthesis, placement and routing of the block alone, and reports.
#
#   vivado -mode batch -source @NAME@_vivado.tcl
#
# It writes the folder @NAME@-vivado where it runs. Another part: set the environment variable PART.

set name @NAME@
set part @PART@
if {[info exists ::env(PART)]} { set part $::env(PART) }
set here [file dirname [file normalize [info script]]]
set work [file join [pwd] $name-vivado]

create_project -force -part $part $name $work
add_files -norecurse [file join $here ${name}_vendor.v]
foreach memory {@MEMORIES@} {
    add_files -norecurse [file join $here $memory]
}
add_files -fileset constrs_1 -norecurse [file join $here ${name}_vivado.xdc]
set_property top $name [current_fileset]
# The ports are those of a block, not of a chip: no pads, no pins.
set_property -name {STEPS.SYNTH_DESIGN.ARGS.MORE OPTIONS} -value {-mode out_of_context} -objects [get_runs synth_1]

foreach run {synth_1 impl_1} {
    launch_runs $run
    wait_on_run $run
    if {[get_property PROGRESS [get_runs $run]] ne "100%"} {
        error "$run did not end: [get_property STATUS [get_runs $run]]"
    }
    open_run $run -name $run
    report_utilization -file [file join $work utilization-$run.rpt]
    report_timing_summary -file [file join $work timing-$run.rpt]
}
puts "reports: [file join $work utilization-impl_1.rpt], [file join $work timing-impl_1.rpt]"
