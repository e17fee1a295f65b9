# @NAME@ in Quartus Prime: a project, synthesis, fitting and timing analysis of the block alone.
#
#   quartus_sh -t @NAME@_quartus.tcl
#
# It writes the folder @NAME@-quartus where it runs. Another part: set the environment variable PART.

load_package project
load_package flow

set name @NAME@
set part @PART@
if {[info exists ::env(PART)]} { set part $::env(PART) }
set here [file dirname [file normalize [info script]]]
set work [file join [pwd] $name-quartus]

file mkdir $work
# Quartus reads a memory's file from the folder of the project.
foreach memory {@MEMORIES@} {
    file copy -force [file join $here $memory] [file join $work $memory]
}
cd $work
project_new -overwrite -part $part $name
set_global_assignment -name TOP_LEVEL_ENTITY $name
set_global_assignment -name VERILOG_FILE [file join $here ${name}_vendor.v]
set_global_assignment -name SDC_FILE [file join $here ${name}_quartus.sdc]
# The ports are those of a block, not of a chip: no pads, no pins. The clock alone comes from outside.
foreach port {@PORTS@} {
    set_instance_assignment -name VIRTUAL_PIN ON -to $port
}
export_assignments

foreach tool {map fit sta} {
    execute_module -tool $tool
}
project_close
puts "reports: [file join $work $name.fit.rpt], [file join $work $name.sta.rpt]"
