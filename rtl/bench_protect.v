
  // Flip bits of a word of memory M, one or two; once more, and it is as it was.
  task flip;
    input integer memory;
    input twice;
    case (memory)
@FLIPS@      default: fail("there is no such memory");
    endcase
  endtask

  // One or two flipped bits must be told@CORRECTING@.
  task inject;
    input integer memory;
    input twice;
    begin
      reset;
      flip(memory, twice);
      sound = 1'b0;
      checking = @CORRECTS@;
      stop = SOME_ELEMENTS;
      due = SOME_OUTPUTS;
      run;
      if (fault_detected !== @DETECTED@@CORRECTED@)
        fail("flipped bits of a memory are not told");
      flip(memory, twice);
      reset;
      sound = 1'b1;
      checking = 1'b1;
    end
  endtask
