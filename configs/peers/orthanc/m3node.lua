-- Sends each CT series to the node, once nothing has come for it during StableAge seconds. Results are SR, SEG and
-- presentation states, so what the node sends back is never sent to it again.
--
-- Orthanc does not repeat a job that failed. Here it is remembered, and sent again when the next series goes through or
-- becomes stable. A restart of Orthanc forgets: then send it by hand, in Orthanc Explorer or by
--   curl -u USER --data SERIES http://127.0.0.1:8042/modalities/m3node/store

local NODE = 'm3node'          -- its name in DicomModalities
local jobs = {}                -- job -> series that it sends
local failed = {}              -- series that did not get there -> true

local function send(series)
   local answer = RestApiPost('/modalities/' .. NODE .. '/store',
                              DumpJson({ Resources = { series }, Asynchronous = true }, true))
   local job = answer and answer ~= '' and ParseJson(answer)
   if job and job['ID'] then
      jobs[job['ID']] = series
   else
      failed[series] = true
   end
end

local function sendFailed(except)
   local again = failed
   failed = {}
   for series, _ in pairs(again) do
      if series ~= except then
         send(series)
      end
   end
end

function OnStableSeries(series, tags, metadata)
   if tags['Modality'] == 'CT' then
      print('m3node: sending series ' .. series)
      send(series)
      sendFailed(series)
   end
end

function OnJobSuccess(job)
   if jobs[job] then
      jobs[job] = nil
      sendFailed()
   end
end

function OnJobFailure(job)
   local series = jobs[job]
   if series then
      jobs[job] = nil
      failed[series] = true
      print('m3node: series ' .. series .. ' was not sent; it goes again with the next one')
   end
end
