# @NAME@ in Lattice Radiant: a project, synthesis by LSE, mapping, placement and routing of the block alone.
#
#   radiantc @NAME@_radiant.tcl
#
# It writes the folder @NAME@-radiant where it runs. Another part: set the environment variable PART.

set name @NAME@
set part @PART@
if {[info exists ::env(PART)]} { set part $::env(PART) }
set here [file dirname [file normalize [info script]]]
set work [file join [pwd] $name-radiant]

file delete -force $work
file mkdir [file join $work impl_1]
# A memory's file is looked for where the project is, or where its implementation is.
foreach memory {@MEMORIES@} {
    file copy -force [file join $here $memory] [file join $work $memory]
    file copy -force [file join $here $memory] [file join $work impl_1 $memory]
}
cd $work
prj_create -name $name -impl impl_1 -dev $part -synthesis lse
prj_add_source [file join $here ${name}_vendor.v]
prj_add_source [file join $here ${name}_radiant.sdc]
prj_set_impl_opt -impl impl_1 top $name
# The ports are those of a block, not of a chip: no pads, no pins. An iCE40 has no such option.
if {![string match -nocase "ice40*" $part]} {
    prj_set_strategy_value -strategy Strategy1 map_set_virtual_io_all_ports=True
}
prj_save

prj_run_synthesis
prj_run_map
prj_run_par
prj_save
prj_close
puts "reports: [file join $work impl_1]"
